r"""Regular expressions whose time may grow faster than the text: found in their parsed form, by rules that suffice.

Host side. Reads: sources of the modules that are given. Writes: nothing.

A pattern that keeps both rules takes time in proportion to the text, whatever the text says:

1. Nothing is read in two ways. A loop whose turns the engine may give back (not possessive, not atomic) begins with
   no character that what follows it may begin with, so that every other way fails at its first character; within it
   the same holds for each choice, and it has no empty turn. A loop over single characters, outside of other loops,
   may also be followed by text of limited length, or be of limited length itself.
2. A search reads nothing twice. Of what stands before a loop, some character cannot be in the loop, so that no second
   start lies within what the first one read; or nothing can fail behind the loop.

A repeat up to SMALL times is no loop, and one up to LIMITED times none of rule 2.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import types
from collections.abc import Iterator
from re import _constants as op
from re import _parser as parser
from typing import NamedTuple

SMALL, LIMITED = 8, 100
END = ""  # in a set of first characters: the pattern may end here

_FURTHER = "０５９éßΩπжアー、。！？；：（）％＝“”‘’′−–—…×÷·⋅∙∗√∛≤≥≠±∓∪∩∈∅≈°€£¥₹¢²³⁴ⁿ₂\u00a0\u2003\u200b\u2028"
ALPHABET = frozenset(map(chr, range(0x100))) | frozenset(_FURTHER)
_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d", op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S", op.CATEGORY_WORD: r"\w", op.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip
_SETS = {kind: frozenset(re.findall(p, "".join(ALPHABET))) for kind, p in _CATEGORIES.items()}
_WORD = _SETS[op.CATEGORY_WORD]
_CHARS = (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN)
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)
_METHODS = frozenset("compile search match fullmatch sub subn split findall finditer".split())


def faults(pattern: str, flags: int = 0, *, anchored: bool = False) -> list[str]:
    r"""What could make a pattern slow; [] if nothing can.

    Args:
      pattern: in Python's syntax.
      flags: of `re.compile`.
      anchored: tried at one place only (`match`, `fullmatch`), so that rule 2 is kept.
    Example:
      >>> faults(r"(?:a|b)*c"), faults(r"a+$")
      ([], ['a loop that a search reads again from its middle: 1 or more of a'])
      >>> [len(faults(p, anchored=True)) for p in (r"(a*)*b", r"\s*,?\s*b", r"\s*+,?\s*b")]
      [2, 1, 0]
    """
    tree = parser.parse(pattern, flags)
    found: list[str] = []
    _choices(list(tree), _Behind({END}, loops=False), tree.state.flags, False, found)
    if not anchored:
        _starts(list(tree), [], tree.state.flags, True, found)
    return found


# --- sets of characters ----------------------------------------------------------------------------


def _chars(kind: int, value: object, flags: int) -> frozenset[str]:
    if kind == op.ANY:
        found = ALPHABET if flags & re.DOTALL else ALPHABET - {"\n"}
    elif kind in (op.LITERAL, op.NOT_LITERAL):
        found = frozenset({chr(value)})
    else:
        found = frozenset().union(*(_member(*item) for item in value))
    if flags & re.IGNORECASE:
        found |= frozenset(c for o in found for c in (o.lower(), o.upper()) if len(c) == 1)
    negated = kind == op.NOT_LITERAL or kind == op.IN and value[0][0] == op.NEGATE
    return ALPHABET - found if negated else found


def _member(kind: int, value: object) -> frozenset[str]:
    if kind == op.LITERAL:
        return frozenset({chr(value)})
    if kind == op.RANGE:
        return frozenset(c for c in ALPHABET if value[0] <= ord(c) <= value[1])
    return frozenset() if kind == op.NEGATE else _SETS[value]


def _bodies(kind: int, value: object) -> list[list]:
    """Sequences of which an item is one."""
    if kind in _REPEATS:
        return [list(value[2])]
    if kind == op.BRANCH:
        return [list(branch) for branch in value[1]]
    if kind == op.SUBPATTERN:
        return [list(value[3])]
    if kind == op.ATOMIC_GROUP:
        return [list(value)]
    if kind == op.GROUPREF_EXISTS:
        return [list(value[1]), list(value[2] or [])]
    if kind in (op.ASSERT, op.ASSERT_NOT):
        return [list(value[1])]
    if kind in _CHARS or kind == op.AT:
        return []
    raise AssertionError(f"no rule for {kind}")


def _flags(kind: int, value: object, flags: int) -> int:
    return flags & ~value[2] | value[1] if kind == op.SUBPATTERN else flags


def _alphabet(items: list, flags: int) -> frozenset[str]:
    """All characters that a sequence may read."""
    found: frozenset[str] = frozenset()
    for kind, value in items:
        if kind in _CHARS:
            found |= _chars(kind, value, flags)
        elif kind not in (op.ASSERT, op.ASSERT_NOT):
            for body in _bodies(kind, value):
                found |= _alphabet(body, _flags(kind, value, flags))
    return found


def _first(items: list, follow: frozenset[str] | set[str], flags: int) -> frozenset[str]:
    """Characters that a sequence may begin with, where `follow` stands behind it."""
    found = frozenset(follow)
    for kind, value in reversed(items):
        inner = _flags(kind, value, flags)
        if kind in _CHARS:
            found = _chars(kind, value, flags)
        elif kind in _REPEATS:
            body = _first(list(value[2]), found, inner)
            found = body if value[0] else body | found
        elif kind == op.ASSERT and value[0] > 0:
            ahead = _first(list(value[1]), {END}, inner)
            if END not in ahead:
                found = ahead if END in found else ahead & found
        elif kind == op.ASSERT_NOT and value[0] > 0 and _loops(list(value[1])):
            found |= _first(list(value[1]), frozenset(), inner)
        elif kind not in (op.AT, op.ASSERT, op.ASSERT_NOT):
            found = frozenset().union(*(_first(b, found, inner) for b in _bodies(kind, value)))
    return found


def _may_be_empty(items: list) -> bool:
    """Whether a sequence may read nothing; what it asserts may fail still."""
    for kind, value in items:
        if kind in _CHARS:
            return False
        if kind in _REPEATS and not value[0] or kind in (op.AT, op.ASSERT, op.ASSERT_NOT):
            continue
        if not any(map(_may_be_empty, _bodies(kind, value))):
            return False
    return True


def _cannot_fail(items: list) -> bool:
    return all(kind in _REPEATS and not value[0] for kind, value in items)


def _loops(items: list, size: int = SMALL) -> bool:
    """Whether a loop is in a sequence, or in what it asserts."""
    return any(
        kind in _REPEATS and value[1] > size or any(_loops(b, size) for b in _bodies(kind, value))
        for kind, value in items
    )


# --- the two rules ---------------------------------------------------------------------------------


class _Behind(NamedTuple):
    """What follows a sequence."""

    first: frozenset[str] | set[str]
    loops: bool


_NOTHING = _Behind(frozenset({END}), False)


def _choices(items: list, behind: _Behind, flags: int, looped: bool, found: list) -> None:
    for i, (kind, value) in enumerate(items):
        inner, rest = _flags(kind, value, flags), items[i + 1 :]
        after = _Behind(_first(rest, behind.first, flags), behind.loops or _loops(rest))
        if kind in _REPEATS:
            _repeat(items[i], after, inner, looped, found)
            continue
        bodies = _bodies(kind, value)
        if kind in (op.BRANCH, op.GROUPREF_EXISTS) and looped:
            firsts = [_first(body, after.first, inner) for body in bodies]
            if sum(map(len, firsts)) != len(frozenset().union(*firsts)):
                found.append(f"branches in a loop that begin alike: {_shown(items[i])}")
        apart = kind in (op.ATOMIC_GROUP, op.ASSERT, op.ASSERT_NOT)
        for body in bodies:
            _choices(body, _NOTHING if apart else after, inner, looped and not apart, found)


def _repeat(item: tuple, after: _Behind, flags: int, looped: bool, found: list) -> None:
    low, high, body = item[1]
    body, taken = list(body), item[0] == op.POSSESSIVE_REPEAT
    first = _first(body, frozenset(), flags)
    if high > SMALL and _may_be_empty(body):
        found.append(f"a turn that may be empty: {_shown(item)}")
    limited = not looped and len(body) == 1 and body[0][0] in _CHARS
    limited = limited and (high <= LIMITED or not after.loops)
    if (high > SMALL or looped) and not taken and low != high and not limited:
        if both := first & after.first:
            shown = "".join(sorted(both))[:8]
            found.append(f"a loop that may give back {shown!r}: {_shown(item)}")
    if taken:
        behind = _NOTHING
    else:
        again = high > 1
        behind = _Behind(after.first | first if again else after.first,
                         after.loops or again and _loops(body))  # fmt: skip
    _choices(body, behind, flags, (high > SMALL or looped) and not taken, found)


def _starts(items: list, before: list, flags: int, free: bool, found: list) -> list:
    """Rule 2; `before` holds sets of which a character must have been read, `free`: nothing can fail behind."""
    before = list(before)
    for i, (kind, value) in enumerate(items):
        inner, rest_free = _flags(kind, value, flags), free and _cannot_fail(items[i + 1 :])
        bodies = _bodies(kind, value)
        if kind in _CHARS:
            before.append(_chars(kind, value, flags))
        elif kind in _REPEATS:
            read = _alphabet(bodies[0], inner)
            if value[0] or value[1] <= LIMITED:  # the first turn, then the others
                turn = _starts(bodies[0], before, inner, rest_free, found)
                before = turn if value[0] else before
            apart = any(not read & chars for chars in before)
            if value[1] > LIMITED and not (apart or rest_free):
                found.append(
                    f"a loop that a search reads again from its middle: {_shown(items[i])}"
                )
        elif kind == op.AT:
            before.append(_place(value, flags))
        elif kind in (op.ASSERT, op.ASSERT_NOT):
            if value[0] < 0 and len(bodies[0]) == 1 and bodies[0][0][0] in _CHARS:
                chars = _chars(*bodies[0][0], inner)
                before.append(chars if kind == op.ASSERT else ALPHABET - chars)
            else:
                _starts(bodies[0], before, inner, True, found)
        else:
            ways = [_starts(body, before, inner, rest_free, found) for body in bodies]
            extra = [way[len(before) :] for way in ways]
            if len(ways) == 1:
                before += extra[0]
            elif all(extra):  # one character of each branch, whichever was taken
                before.append(frozenset().union(*(min(e, key=len) for e in extra)))
    return before


def _place(where: int, flags: int) -> frozenset[str]:
    if where == op.AT_BEGINNING and flags & re.MULTILINE:
        return frozenset("\n")
    if where in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
        return frozenset()
    if where == op.AT_BOUNDARY:
        return ALPHABET - _WORD  # holds for loops of letters alone, which begin with one
    return ALPHABET


def _shown(item: tuple) -> str:
    kind, value = item
    if kind in _REPEATS:
        high = "more" if value[1] == op.MAXREPEAT else value[1]
        return f"{value[0]} or {high} of " + "".join(map(_shown, value[2]))[:60]
    return chr(value) if kind == op.LITERAL else str(item)[:60]


# --- patterns of a module --------------------------------------------------------------------------


def patterns(name: str) -> Iterator[tuple[str, str, int, bool]]:
    """(place, pattern, flags, whether it is tried at one place only) of all that a module compiles or names in a call.

    Raises:
      AssertionError: a pattern that is put together from local names, of which nothing can be said.
    """
    module = importlib.import_module(name)
    tree = ast.parse(inspect.getsource(module))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    used: dict[str, set[str]] = {}
    for call in calls:
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            used.setdefault(call.func.value.id, set()).add(call.func.attr)
    for variable, value in vars(module).items():
        places = used.get(variable, set()) & _METHODS
        anchored = bool(places) and places <= {"match", "fullmatch"}
        for pattern in _compiled(value):
            yield f"{name}.{variable}", pattern.pattern, pattern.flags & ~re.UNICODE, anchored
    for call in calls:
        function = ast.unparse(call.func)
        method = function.removeprefix("re.")
        if not function.startswith("re.") or method not in _METHODS - {"compile"}:
            continue
        text = ast.unparse(call.args[0])
        if text.startswith("re.escape("):
            continue  # one fixed text
        place = f"{name}, line {call.lineno}"
        try:
            pattern = eval(text, vars(module))
        except NameError as error:
            raise AssertionError(f"{place}: {text}: cannot be told before it runs") from error
        at = 2 if method in ("search", "match", "fullmatch", "findall", "finditer") else 99
        flags = [k.value for k in call.keywords if k.arg == "flags"] + call.args[at : at + 1]
        value = int(eval(ast.unparse(flags[0]), vars(module))) if flags else 0
        if isinstance(pattern, str):
            yield place, pattern, value, method in ("match", "fullmatch")


def _compiled(value: object) -> Iterator[re.Pattern]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _compiled(item)
    elif isinstance(value, dict) and not isinstance(value, types.ModuleType):
        for item in value.values():
            yield from _compiled(item)
