r"""Fonts of TeX taken off: \mathbf{4}\mathbf{2}, {\rm 42} and \textbf{\textit{42}} are 42.

Host side. Reads: nothing. Writes: nothing.

Fonts of text keep their words in \text{...}, which the grammar needs to tell words from letters.
"""

from __future__ import annotations

import re

_MATHS = (
    "mathbf underline underbar uline boldsymbol bold bm mathit mathnormal mathsf mathtt mathcal ensuremath pmb "
    "symbf mathds"
).split()
_TEXTS = (
    "text mathrm mbox textrm textnormal textbf textit texttt textsf textsc textsl textup textmd emph hbox"
).split()
_KEPT = frozenset("text mathrm mbox textrm textnormal textbf".split())  # known further on
_FONT = re.compile(
    rf"\\({'|'.join(sorted([*_MATHS, *_TEXTS], key=len, reverse=True))})(?![a-zA-Z])\s*+(?=\{{)"
)
_SWITCH = re.compile(
    r"(\{\s*+)?\\(?:rm|bf|it|tt|sf|sc|sl|em|rmfamily|ttfamily|sffamily|bfseries|itshape|mdseries|upshape|scshape"
    r"|slshape|normalfont)(?![a-zA-Z])\s*+(\{)?"
)
_COMMANDS = re.compile(r"\\(?:[a-zA-Z]++|.)", re.S)
_WORD = re.compile(r"[^\W\d_]{2}")
_NUMBER = re.compile(r"\s*+[0-9]++(?:\.[0-9]*+)?\s*+")
_NEEDS_BRACES = re.compile(r"(?:[\^_]|\\[a-zA-Z]+)\s*$")
_LOOK_BACK = 12


def without(text: str) -> str:
    r"""Text without fonts of maths, and with \text{...} for the others where there are words in them.

    Example:
      >>> without(r"{\rm 9}"), without(r"\mathrm{1}\mathrm{2}"), without(r"\textbf{\emph{odd}}")
      ('9', '12', '\\text{odd}')
    """
    text = _SWITCH.sub(_as_command, text)
    closing = closing_braces(text)
    edits: dict[int, tuple[int, str]] = {}  # place -> what it is replaced by, and how far
    for match in _FONT.finditer(text):
        opened = match.end()
        end = closing.get(opened)
        if end is None:
            continue
        content = text[opened + 1 : end]
        if match[1] in _TEXTS and _has_words(content, known=match[1] in _KEPT):
            inner = _FONT.match(text, opened + 1)
            if inner and inner[1] in _TEXTS and closing.get(inner.end()) == end - 1:
                edits[match.start()], edits[end] = (opened + 1, ""), (end + 1, "")
            elif match[1] not in _KEPT:
                edits[match.start()] = (opened, r"\text")
            continue
        bare = _NUMBER.fullmatch(content) or match[1] in _TEXTS and not content.strip()
        braces = _NEEDS_BRACES.search(text, max(0, match.start() - _LOOK_BACK), match.start())
        if bare and not braces:
            edits[match.start()], edits[end] = (opened + 1, ""), (end + 1, "")
        elif match[1] not in _KEPT or _NUMBER.fullmatch(content):
            edits[match.start()] = (opened, "")
    pieces, at = [], 0
    for start in sorted(edits):
        stop, new = edits[start]
        if start >= at:
            pieces += [text[at:start], new]
            at = stop
    return "".join([*pieces, text[at:]])


def _as_command(match: re.Match) -> str:
    r"""{\rm x} as \mathrm{x}, \rm{x} likewise, \rm x as x."""
    if match[2]:
        return (match[1] or "") + r"\mathrm{"
    return r"\mathrm{" if match[1] else ""


def _has_words(content: str, *, known: bool) -> bool:
    """Whether letters of text are in it, and not of a formula."""
    plain = _COMMANDS.sub(" ", content)
    letters = any(c.isalpha() for c in plain)
    if known or not letters:
        return letters or known and bool(content.strip()) and not any(c.isdigit() for c in plain)
    formula = any(c.isdigit() or c in "+-=^/" for c in plain)
    return _WORD.search(plain) is not None or not formula


def closing_braces(text: str) -> dict[int, int]:
    """Place of each brace that opens, and of the one that closes it.

    Example:
      >>> closing_braces("{a{b}")
      {2: 4}
    """
    found, opened = {}, []
    for i, char in enumerate(text):
        if char == "{":
            opened.append(i)
        elif char == "}" and opened:
            found[opened.pop()] = i
    return found
