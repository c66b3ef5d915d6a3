r"""Executable step check: every equation between numbers in a step is computed.

Host side. Reads: nothing. Writes: nothing.

Finds slips of arithmetic and nothing else: a step that computes the wrong thing rightly is "right".
Cautious where a text can mean several things: names, dangling operators, rounding to whole numbers
and changes of unit make an equation "unknown".
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from jaxrl_reason.verify import grammar, values
from jaxrl_reason.verify.lexer import Unreadable

Outcome = Literal["right", "wrong", "unknown"]

MAX_STEP_CHARS = 10_000
_MAX_EQUATIONS = 100  # of one step that are looked at
_MAX_SIDE = 40  # tokens of one side that are looked at
_MAX_WORDS = 3  # in a row, as the unit of a number
_TIMEOUT_S = (
    5.0  # for one step; the limits above bound it long before, so that load changes no outcome
)

# What one unit is of another, and a share in percent: a mismatch by such a factor is no slip.
_CONVERSIONS = frozenset(
    Fraction(n) for n in (2, 3, 4, 5, 7, 8, 10, 12, 16, 24, 25, 30, 36, 52, 60, 100, 365, 1000, 1440, 3600)
)  # fmt: skip

_ANNOTATION = re.compile(r"<<([^<>]*)>>")
_REWRITES = [
    (re.compile(r"\\(?:left|right|[;,!:]|quad|qquad|displaystyle|,)"), " "),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\boxed\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"(?<=[\d)])\*\*(?=[\d(])"), "^"),
    (re.compile(r"(?<=[\d)%]) +equals +(?=[\d(.$-])"), " = "),
    (re.compile(r"\\(?:times|cdot|ast)|[×·⋅∗]"), " * "),
    (re.compile(r"\\div|÷"), " / "),
    (re.compile(r"(?<=[\d)%])\s*[xX]\s*(?=[\d($.])"), " * "),
    (re.compile(r"(?<=[\d)]) ?/ ?(?=[a-zA-Z])"), " per "),
    (re.compile(r"[−–]"), "-"),
    (re.compile(r"(?<![\d.,])(\d+) and (\d+ ?/ ?\d+)(?!\d)"), r"(\1+\2)"),
    (re.compile(r"\\[()\[\]]|\\?\$|\\(?=%)|[€£]|\*\*"), " "),
    (re.compile(r"\\(?:approx|simeq)|≈"), "≈"),
]
_TOKEN = re.compile(
    r"(?P<num>\d{1,3}(?:,\d{3}(?!\d))+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"|(?P<op>[-+*/^])|(?P<open>[(\[])|(?P<close>[)\]])|(?P<pct>%)"
    r"|(?P<word>[a-zA-Z][a-zA-Z'\-/]*)|(?P<space>\s+)|(?P<other>.)",
    re.S,
)
_OPERATOR_WORDS = {"of": "*", "times": "*", "plus": "+", "minus": "-", "multiplied": "*"}
_BREAKS = frozenset(
    "and then so is are because gives which to that thus therefore hence or if when we he she they it the "
    "get gets equals total was were has have for with since in on at as from by but also".split()
)


class Equation(NamedTuple):
    """Both sides as they were read, and what came of them."""

    left: str
    right: str
    outcome: Outcome


def check_step(text: str) -> Outcome:
    """Whether the arithmetic of one reasoning step holds.

    Args:
      text: one step; only its first MAX_STEP_CHARS are read.
    Returns:
      "wrong" if some equation is, else "right" if some equation is, else "unknown".
    Example:
      >>> check_step("She sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs."), check_step("3 pens * 4 = 13")
      ('right', 'wrong')
      >>> check_step("So x = 4 - y.")
      'unknown'
    """
    found = {equation.outcome for equation in equations(text)}
    return "wrong" if "wrong" in found else "right" if "right" in found else "unknown"


def first_wrong_step(steps: Sequence[str]) -> int:
    """The first step whose arithmetic fails: a locator that needs no model.

    Args:
      steps: a solution, cut into steps.
    Returns:
      0-indexed; -1 where no step is found wrong.
    Example:
      >>> first_wrong_step(["2 + 3 = 5", "5 * 2 = 12", "12 - 1 = 10"])
      1
    """
    return next((i for i, step in enumerate(steps) if check_step(step) == "wrong"), -1)


def equations(text: str) -> list[Equation]:
    """Every equation between numbers in a text, annotations first.

    Args:
      text: one step or a whole solution.
    Returns:
      Equations with at least one operation on one side.
    Example:
      >>> equations("half of 48 is 48/2=24")
      [Equation(left='48/2', right='24', outcome='right')]
    """
    deadline = time.monotonic() + _TIMEOUT_S
    text = text[:MAX_STEP_CHARS]
    pieces = _ANNOTATION.findall(text) + [_ANNOTATION.sub("", text)]
    found: list[Equation] = []
    try:
        for piece in pieces:
            if any(sign in piece for sign in ("=", "≈", "approx", "equals")):
                found += _chain(piece, deadline)
    except values.OutOfTime:
        pass
    return found


def _chain(text: str, deadline: float) -> list[Equation]:
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    if re.search(r"[<>≤≥≠!]\s*=|=\s*=", text):
        return []
    found = []
    parts = [_tokens(part) for part in re.split(r"[=≈]", text)]
    linked = -2  # number of the last equation of this chain
    about = [mark == "≈" for mark in re.findall(r"[=≈]", text)]
    for i, rounded in enumerate(about[:_MAX_EQUATIONS]):
        if time.monotonic() > deadline:
            break
        left, right = parts[i], parts[i + 1]
        one, other = _suffix(left, deadline), _prefix(right, deadline)
        if one is None or other is None:
            continue
        if not (one.operations or other.operations):
            # 3 + 4 = 7 = 8: a bare number again stands for what came before it.
            words = one.words or other.words
            if words or linked != i - 1 or len(left) > 1 or len(right) > 1:
                continue
        elif not one.operations and (not i or one.words or len(left) > 1):
            continue  # "oranges in 8 boxes = 8 * 20": the number belongs to the words
        linked = i
        found.append(Equation(one.text, other.text, _compare(one, other, rounded)))
    return found


class _Side(NamedTuple):
    text: str
    value: Fraction
    operations: int
    decimals: int  # behind the point, where the side is one number; else -1
    percent: bool
    words: bool
    share: bool  # "of" was read as times


def _tokens(text: str) -> list[tuple[str, str, bool]]:
    """(kind, text, whether white space stands before it); words that operate become operators."""
    found, spaced = [], False
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup, match[0]
        if kind == "space":
            spaced = True
            continue
        if kind == "word":
            lowered = token.lower()
            if lowered in _OPERATOR_WORDS and found and found[-1][0] in ("num", "pct", "close"):
                kind, token = "op", lowered
            elif (
                lowered in _BREAKS
                or len(token) == 1
                or found
                and found[-1][0] == "num"
                and not spaced
            ):
                kind = "other"  # a name, as in 2x, or the rest of the sentence
        elif kind == "op" and found and found[-1][1] in _OPERATOR_WORDS:
            found.pop()  # 3 times * 5
        elif kind in ("open", "close"):
            token = "(" if kind == "open" else ")"
        found.append((kind, token, spaced))
        spaced = False
    return found


def _suffix(tokens: list[tuple[str, str, bool]], deadline: float) -> _Side | None:
    """The longest arithmetic that ends where the tokens end."""
    first = max(0, len(tokens) - _MAX_SIDE)
    for i in range(len(tokens) - 1, first - 1, -1):
        if tokens[i][0] == "other":
            first = i + 1
            break
    for start in range(first, len(tokens)):
        if tokens[start][0] not in ("num", "open", "op"):
            continue
        if tokens[start][0] == "op" and (tokens[start][1] != "-" or start > first):
            continue
        side = _side(tokens[start:], deadline)
        if side is not None:
            before = tokens[start - 1] if start else None
            if before and (
                before[0] in ("op", "num", "open") or before[0] == "word" and len(before[1]) == 1
            ):
                return None  # 2x + 3 = 7: arithmetic only in part
            return side
    return None


def _prefix(tokens: list[tuple[str, str, bool]], deadline: float) -> _Side | None:
    """The longest arithmetic that starts where the tokens start."""
    last = min(len(tokens), _MAX_SIDE)
    for i in range(last):
        if tokens[i][0] == "other":
            last = i
            break
    for stop in range(last, 0, -1):
        if tokens[stop - 1][0] not in ("num", "close", "pct"):
            continue
        side = _side(tokens[:stop], deadline)
        if side is not None:
            behind = tokens[stop] if stop < len(tokens) else None
            after = next((t for t in tokens[stop:] if t[0] != "word"), None)
            if after and (after[0] in ("op", "open", "num") or after[1] == ":" and not after[2]):
                return None
            if behind and behind[0] in ("word", "other") and behind[1].isalpha() and not behind[2]:
                return None
            words = side.words or behind is not None and behind[0] == "word"
            return side._replace(words=words)
    return None


def _side(tokens: list[tuple[str, str, bool]], deadline: float) -> _Side | None:
    parts: list[str] = []
    words = run = operations = 0
    share = False
    previous = ""
    for kind, token, _ in tokens:
        if kind == "word":
            run += 1
            words += 1
            if previous not in ("num", "pct", "close", "word") or run > _MAX_WORDS:
                return None
        else:
            if previous == "word" and kind not in ("op", "close"):
                return None
            if previous in ("num", "pct") and kind == "num":
                return None
            run = 0
            operations += kind == "op" and bool(parts)
            parts.append(_OPERATOR_WORDS.get(token, token.replace(",", "")))
            share |= token == "of"
        previous = kind
    if parts.count("(") != parts.count(")"):
        return None
    text = "".join(parts)
    try:
        value = values.evaluate(grammar.parse(text), {}, deadline)
    except Unreadable:
        return None
    if not isinstance(value, Fraction):
        return None
    bare = text.lstrip("-").rstrip("%")
    decimals = len(bare.partition(".")[2]) if bare.replace(".", "", 1).isdecimal() else -1
    return _Side(text, value, operations, decimals, "%" in text, words > 0, share)


def _compare(left: _Side, right: _Side, about: bool) -> Outcome:
    a, b = left.value, right.value
    cases = [(a, b)]
    if left.percent or right.percent:
        cases += [(100 * a, b), (a, 100 * b)]  # (5 / 20) * 100 = 25%: the sign is a unit here
    twice = re.sub(r"/(\d+)/(\d+)(?!\d)", r"/(\1/\2)", left.text)
    if twice != left.text:  # 25 / 1/3 means a division by a third
        cases.append((values.evaluate(grammar.parse(twice), {}, float("inf")), b))
    found = {_compare_numbers(x, y, left, right, about) for x, y in cases}
    if "right" in found:
        return "right"
    ratio = max(abs(a), abs(b)) / min(abs(a), abs(b)) if a and b else None
    units = left.words or right.words or left.percent or right.percent
    if "unknown" in found or right.share or ratio in _CONVERSIONS and units:
        return "unknown"
    return "wrong"


def _compare_numbers(a: Fraction, b: Fraction, left: _Side, right: _Side, about: bool) -> Outcome:
    if a == b:
        return "right"
    decimals = right.decimals if right.decimals >= 0 else left.decimals
    if decimals > 0 or about:
        if abs(a - b) <= Fraction(1, 10 ** max(decimals, 0)):
            return "right"  # rounded or cut
        if abs(a - b) <= max(abs(a), abs(b)) / 100:
            return "unknown"  # rounded on the way
    if a.denominator != 1 and b.denominator == 1 and abs(a - b) < 1:
        return "unknown"  # people and buses are whole
    return "wrong"
