"""Tests of programs: the records of data sets to one form, and outputs compared.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import base64
import json
import math
import pickletools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

REL_TOLERANCE = 1e-6  # of numbers with a point, relative where they are larger than 1
_MAX_NUMBER_CHARS = 64  # longer tokens are compared as text
_MAX_INTEGER_CHARS = 4300  # that Python reads by default
MAX_PACKED_BYTES = 512 << 20  # of the tests of one problem, unpacked


class Tests(NamedTuple):
    """Tests of one problem."""

    inputs: tuple[str, ...]  # standard input; with `function`, a JSON list of its arguments
    outputs: tuple[Any, ...]  # expected text; with `function`, JSON values that are all right
    function: str | None  # called for each test; also as a method of class Solution


def read_tests(record: Any) -> Tests:
    r"""Tests as data sets write them.

    {"inputs": [...], "outputs": [...], "fn_name": ...} (APPS, TACO, OpenCodeReasoning): texts, lists of lines, or, with
    `fn_name`, lists of arguments. A list of {"input", "output"} (LiveCodeBench), with `fn_name` put beside it as
    {"tests": [...], "fn_name": ...}: arguments are then one line of JSON each.

    Args:
      record: one of these; checked here.
    Returns:
      Tests, at least one.
    Raises:
      ValueError: a field is missing, of another type or length, or arguments are no JSON.
    Example:
      >>> read_tests({"inputs": ["1\n2\n"], "outputs": ["3\n"]}).inputs
      ('1\n2\n',)
      >>> read_tests({"tests": [{"input": "[1, 2]\n3", "output": "6"}], "fn_name": "total"})
      Tests(inputs=('[[1, 2], 3]',), outputs=((6,),), function='total')
    """
    if not isinstance(record, Mapping):
        record = {"tests": record}
    if "tests" in record:
        pairs = record["tests"]
        if not isinstance(pairs, Sequence) or not all(
            isinstance(pair, Mapping) and {"input", "output"} <= pair.keys() for pair in pairs
        ):
            raise ValueError('tests must be a list of {"input", "output"} objects')
        inputs, outputs = [p["input"] for p in pairs], [p["output"] for p in pairs]
    else:
        inputs, outputs = record.get("inputs"), record.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list):
            raise ValueError("tests need the lists inputs and outputs")
    if not inputs or len(inputs) != len(outputs):
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs: one each, at least one")
    function = record.get("fn_name") or None
    if function is None:
        return Tests(tuple(map(_text, inputs)), tuple(map(_text, outputs)), None)
    if not isinstance(function, str) or not function.isidentifier():
        raise ValueError(f"fn_name = {function!r}: must be the name of a function")
    return Tests(tuple(map(_arguments, inputs)), tuple(map(_results, outputs)), function)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    raise ValueError(f"{value!r:.80}: must be a text or a list of lines")


def _arguments(value: Any) -> str:
    if isinstance(value, list):
        return json.dumps(value)
    try:
        lines = [line.strip() for line in value.split("\n") if line.strip()]
        for line in lines:
            _read_json(line)
        return f"[{', '.join(lines)}]"
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"{value!r:.80}: arguments must be a list, or one line of JSON each"
        ) from error


def _results(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        try:
            return (_read_json(value),)
        except ValueError:
            return (value,)
    # APPS wraps what a function returns in a list, most of the time.
    return (value, value[0]) if isinstance(value, list) and len(value) == 1 else (value,)


def from_json(fields: Sequence[Any]) -> Tests:
    """Tests again, of what JSON made of them.

    Example:
      >>> tests = read_tests({"inputs": [[1]], "outputs": [[2]], "fn_name": "f"})
      >>> from_json(json.loads(json.dumps(tests))) == tests
      True
    """
    inputs, outputs, function = fields
    return Tests(tuple(inputs), tuple(map(tuple, outputs) if function else outputs), function)


_PICKLE_OF_TEXT = frozenset(
    "PROTO FRAME UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 PUT BINPUT LONG_BINPUT MEMOIZE STOP".split()
)


def unpack(text: str) -> list[Any]:
    """A list of tests as LiveCodeBench packs it: base64 of zlib of a pickle of one text, which is JSON.

    The pickle is not loaded: its instructions are read, and all but those that make up a text are refused.

    Args:
      text: as it stands in the data set.
    Returns:
      What the JSON says.
    Raises:
      ValueError: it is packed otherwise, or holds more than MAX_PACKED_BYTES.
    Example:
      >>> import base64, pickle, zlib
      >>> unpack(base64.b64encode(zlib.compress(pickle.dumps('[{"input": "1"}]'))).decode())
      [{'input': '1'}]
    """
    try:
        inflating = zlib.decompressobj()
        data = inflating.decompress(base64.b64decode(text, validate=True), MAX_PACKED_BYTES)
        if inflating.unconsumed_tail:
            raise ValueError(f"packed tests of more than {MAX_PACKED_BYTES >> 20} MiB")
        texts = []
        for operation, argument, _ in pickletools.genops(data):
            if operation.name not in _PICKLE_OF_TEXT:
                raise ValueError(f"packed tests hold more than a text ({operation.name})")
            if "UNICODE" in operation.name:
                texts.append(argument)
        (found,) = texts
        return json.loads(found)
    except (ValueError, zlib.error, RecursionError) as error:
        raise ValueError(f"must be a JSON list of tests, or one that is packed: {error}") from error


def same_output(output: str, expected: str) -> bool:
    r"""Whether a program printed what it should: line by line, word by word.

    White space at the ends of lines and empty lines at both ends do not count; between words, its amount does not.
    Where the expected word is a number with a point or an exponent, REL_TOLERANCE is allowed.

    Example:
      >>> same_output("1  2 \n3.3333333\n\n", "1 2\n3.33333329\n"), same_output("1 2 3", "1 2\n3")
      (True, False)
    """
    lines, wanted = output.strip().splitlines(), expected.strip().splitlines()
    return len(lines) == len(wanted) and all(
        a == b or _same_words(a.split(), b.split()) for a, b in zip(lines, wanted, strict=True)
    )


def _same_words(words: list[str], wanted: list[str]) -> bool:
    return len(words) == len(wanted) and all(
        a == b or _same_number(a, b) for a, b in zip(words, wanted, strict=True)
    )


def _same_number(word: str, wanted: str) -> bool:
    if max(len(word), len(wanted)) > _MAX_NUMBER_CHARS or not set(wanted) & set(".eE"):
        return False
    try:
        return _close(float(word), float(wanted))
    except ValueError:
        return False


def _close(a: float, b: float) -> bool:
    if not (math.isfinite(a) and math.isfinite(b)):
        return a == b
    return abs(a - b) <= REL_TOLERANCE * max(1.0, abs(b))


class LongInteger(str):
    """Digits of an integer that is too long to be read in good time: reading takes time that grows with their square.

    As a text it is equal to itself after a way through JSON.
    """


def _integer(digits: str) -> int | LongInteger:
    return int(digits) if len(digits) <= _MAX_INTEGER_CHARS else LongInteger(digits)


def _read_json(text: str) -> Any:
    return json.loads(text, parse_int=_integer)


def same_json(text: str, expected: Sequence[Any]) -> bool:
    """Whether a function returned one of the values that are right, as JSON.

    Tuples are lists there. Numbers with a point are compared like printed ones, and 1.0 is 1, as in Python; but True
    is not 1: a function that says whether it could find a number has not found it.

    Example:
      >>> same_json("[1, 2.0000000001]", ([1, 2.0],)), same_json("[1]", ([2],)), same_json("", (None,))
      (True, False, False)
      >>> same_json("1.0", (1,)), same_json("true", (1,)), same_json("true", (True,))
      (True, False, True)
    """
    try:
        value = _read_json(text)
        return any(_same(value, one) for one in expected)
    except (ValueError, RecursionError):
        return False


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(b, float) and isinstance(a, (int, float)):
        try:
            return _close(float(a), b)
        except OverflowError:
            return False
    return a == b
