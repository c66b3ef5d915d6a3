r"""Code blocks between fences, read as CommonMark reads them, and as models write them where that is clear.

Host side. Reads: nothing. Writes: nothing.

A fence is a line of three or more backticks or tildes, perhaps behind blanks, ">" of a quotation and the mark of a
list. A block ends at a fence of the same sign that is at least as long, or where its quotation ends. Models deviate in
ways that leave no doubt, and these are read as they are meant:

- indentation of any depth (a list, a tab) is taken off the block's lines;
- text or an end-of-turn token behind a closing fence, and a closing fence behind the last line of the program;
- a closing fence too many.

What stands before </think>, or behind a <think> that never closes, is thought and not answer. Time is in proportion
to the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LABELS = frozenset(
    {"", "python", "python2", "python3", "py", "py3", "ipython", "pypy", "pypy3", "cpython"}
)
# Quotation, list mark, blanks; then the fence, and what stands behind it.
_FENCE = re.compile(
    r"((?:[ \t]{0,3}+>[ ]?+)*+)([ \t]*+)((?:(?:[-*+]|\d{1,9}+[.)])[ \t]++)?+)(`{3,}+|~{3,}+)(.*+)",
    re.S,
)
_QUOTED = {True: re.compile(r"[ \t]{0,3}+>[ ]?+"), False: re.compile(r"[ \t]{0,3}+>")}
_LABEL = re.compile(r"[\s{.]*+([\w+#-]*+)")
_PYTHON = re.compile(r"\{?+\.?+(?:python|py)\d?+\b\S*+", re.I)
_TOKEN = re.compile(r"<[|｜/]?+[\w|｜▁]*+>")  # of the end of a turn
_TAIL = 200  # characters that may hold some of them
_OPEN, _CLOSE = "<think>", "</think>"


class Fence(NamedTuple):
    """The fence that opens a block."""

    quotes: int  # signs ">" before it
    spaced: bool  # with a blank behind them
    indent: int  # columns before it
    mark: str  # all of its signs
    label: str  # first word behind it, in small letters


class Block(NamedTuple):
    """A block that was closed."""

    label: str
    text: str  # lines, each with its end


def extract_code(completion: str) -> str | None:
    """The program that a completion ends with: its last Python block, between fences.

    Args:
      completion: any text.
    Returns:
      Source of the last block that is marked as Python, or, where none is, of the last one without a mark. None: there
      is neither, or the text breaks off inside a block or a thought, so that what stands before was not final.
    Example:
      >>> extract_code("```python\\nprint(1)\\n```\\nNo:\\n```python\\nprint(2)\\n```")
      'print(2)\\n'
      >>> extract_code("print(1)") is None
      True
    """
    found = blocks(answer_part(completion))
    if found is None:
        return None
    programs = [block for block in found if block.label in _LABELS]
    marked = [block for block in programs if block.label]
    return (marked or programs)[-1].text if programs else None


def answer_part(completion: str) -> str:
    """What stands behind the first end of thoughts; "" where thoughts never end."""
    thought, close, rest = completion.partition(_CLOSE)
    if not close:
        rest = "" if completion.lstrip().startswith(_OPEN) else thought
    return rest


def blocks(text: str) -> list[Block] | None:
    """All blocks of a text in order; None where it breaks off inside one, or inside a thought.

    Args:
      text: of an answer, without the thoughts before it.
    Returns:
      Blocks; lines between them are left out.
    """
    found: list[Block] = []
    fence: Fence | None = None
    lines: list[str] = []
    thinking, closed = False, False  # closed: the last line that is not blank closed a block
    stray = False
    for line in text.split("\n"):
        if fence is None:
            if _CLOSE in line:
                found, thinking = [], False  # all before it was thought
                line = line.rpartition(_CLOSE)[2]
            thinking = thinking or _OPEN in line
            fence = None if thinking else _opened(line)
            if fence is not None:
                lines, stray = [], closed and not fence.label
            closed = closed and not line.strip()
            continue
        ends, content = _ends(line, fence)
        if ends:
            found.append(Block(fence.label, _text(lines, fence)))
            fence, closed = None, True
        elif (
            not fence.label
            and (again := _opened(line)) is not None
            and again.label in _LABELS
            and again.label
        ):
            fence, lines, stray = (
                again,
                [],
                False,
            )  # the one before closed something, and opened nothing
        else:
            lines.append(content + "\n")
    if thinking:
        return None
    if fence is None:
        return found
    body = _text(lines, fence).rstrip()
    if _CLOSE in body:  # a thought that came late, with a block that it left open
        return blocks(body.rpartition(_CLOSE)[2])
    if _without_tokens(body[-_TAIL:]).endswith(fence.mark):
        return [*found, Block(fence.label, body[: body.rindex(fence.mark)] + "\n")]
    if found and not fence.label and (stray or not _without_tokens(body[-_TAIL:])):
        return found
    return None


def _without_tokens(text: str) -> str:
    while text.endswith(">") and _TOKEN.fullmatch(text, max(text.rfind("<"), 0)):
        text = text[: text.rfind("<")].rstrip()
    return text


def _opened(line: str) -> Fence | None:
    match = _FENCE.fullmatch(line)
    if match is None:
        return None
    quotes, blanks, mark, signs, info = match.groups()
    if signs[0] == "`" and "`" in info:
        return None  # code inside a line
    label = _LABEL.match(info)[1].lower()
    spaced = quotes.endswith(" ")
    return Fence(quotes.count(">"), spaced, len((blanks + mark).expandtabs(4)), signs, label)


def _ends(line: str, fence: Fence) -> tuple[bool, str]:
    """Whether a line ends the block; else the line as it belongs to it."""
    for _ in range(fence.quotes):
        quoted = _QUOTED[fence.spaced].match(line)
        if quoted is None:
            return True, ""  # the quotation is over, and the block with it
        line = line[quoted.end() :]
    bare = line.lstrip(" \t")
    signs = len(bare) - len(bare.lstrip(fence.mark[0]))
    if signs >= len(fence.mark) and _depth(line) <= fence.indent + 3:
        rest = bare[signs:].strip()
        if not rest or not _PYTHON.fullmatch(rest):
            return True, ""
    return False, line


def _text(lines: list[str], fence: Fence) -> str:
    """Lines of a block without the indentation of its fence, or as much of it as they all have."""
    depths = [_depth(line) for line in lines if line.strip()]
    columns = min([fence.indent, *depths])
    return "".join(_dedented(line, columns) for line in lines)


def _depth(line: str) -> int:
    return len(line[: len(line) - len(line.lstrip(" \t"))].expandtabs(4))


def _dedented(line: str, columns: int) -> str:
    """The line without white space in its first columns."""
    taken = 0
    for i, sign in enumerate(line):
        if taken >= columns or sign not in " \t":
            return line[i:]
        taken += 1 if sign == " " else 4 - taken % 4
    return ""
