"""JSON files of checkpoints, read so that a damaged or hostile one is one clear error.

Host side. Reads: JSON files. Writes: nothing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import reprlib
from collections.abc import Mapping
from typing import Any

MOST_BYTES = 256 << 20  # of one file; a large tokenizer.json has 40 MB

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
_TYPES = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "a text"}


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Contents of a JSON file that holds an object.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is no JSON, or no object, or larger than MOST_BYTES.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: has more than {MOST_BYTES >> 20} MiB; it is no such file")
    try:
        fields = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({str(error)[:200]})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: must hold a JSON object, not a {type(fields).__name__}")
    return fields


def shown(value: Any) -> str:
    """`repr` of any value in a line, however long or deep it is.

    Example:
      >>> shown("x" * 1000)
      "'xxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxxxxxxxx'"
    """
    return _REPR.repr(value)


def problem_of(
    value: Any, kind: str, *, least: float | int = -math.inf, most: float | int = math.inf
) -> str:
    """What is wrong with a field's value, for a message; empty: nothing.

    Args:
      value: as JSON gives it.
      kind: int | float | bool | str; a float may be written as an integer, nothing else stands for another.
      least: smallest number allowed.
      most: largest number allowed.
    Example:
      >>> problem_of(64.5, "int", least=1, most=100), problem_of(64, "int", least=1)
      ('must be an integer from 1 to 100', '')
    """
    right = {
        "int": type(value) is int,
        "float": type(value) in (int, float) and abs(value) < math.inf,
        "bool": type(value) is bool,
        "str": type(value) is str,
    }[kind]
    if right and (kind in ("bool", "str") or least <= value <= most):
        return ""
    limits = f" from {least:g}" * (least > -math.inf) + f" to {most:g}" * (most < math.inf)
    if kind == "int":
        limits = limits.replace(f"{most:g}", f"{most}").replace(f"{least:g}", f"{least}")
    return f"must be {_TYPES[kind]}{limits}"


def record_problems(record: type, fields: Mapping[str, Any], where: str = "") -> list[str]:
    """One line for each field that a dataclass does not have, lacks, or has with another type.

    Args:
      record: a dataclass whose simple fields are int, float, bool or str; others are not looked at.
      fields: for its constructor.
      where: put before the names.
    """
    known = {field.name: field for field in dataclasses.fields(record)}
    required = {name for name, field in known.items() if field.default is dataclasses.MISSING}
    problems = [f"{where}{name}: no such field" for name in sorted(fields.keys() - known.keys())]
    problems += [f"{where}{name}: missing" for name in sorted(required - fields.keys())]
    for name in sorted(fields.keys() & known.keys()):
        if known[name].type in _TYPES and (said := problem_of(fields[name], known[name].type)):
            problems.append(f"{where}{name} = {shown(fields[name])}: {said}")
    return problems
