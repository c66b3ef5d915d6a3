r"""What stands right at a box: a sign, an operator or a scale word makes it a part of something else.

Host side. Reads: nothing. Writes: nothing.

Of `-\boxed{5}` and `\boxed{5}^2` the value is no 5, and `\sqrt{\boxed{5}}` or `\cancel{\boxed{5}}`
state none. Looked at is the line of the box, as far as `REACH`.
"""

from __future__ import annotations

import re

from jaxrl_reason.verify import nouns, vocabulary

REACH = 160  # characters on either side that are looked at

_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}+")
_COMMAND = re.compile(r"\\(?:[a-zA-Z]++|.)")
_LEFT_SPACES = (
    r"\,", r"\;", r"\:", r"\!", r"\ ", r"\(", r"\[", r"\\", r"\quad", r"\qquad", r"\displaystyle", r"\left",
    r"\large", r"\Large", r"\huge", r"\Huge", r"\bf", r"\centering", r"\hfill", r"\item", r"\n", r"\thinspace",
    r"\enspace", "**", "__",
)  # fmt: skip
_RIGHT_SPACES = frozenset(
    ", ; : ! ( ) [ ] quad qquad right thinspace enspace hfill n large normalsize rm displaystyle".split()
) | {" "}
_FONTS = frozenset(
    "text textbf textit textrm textnormal texttt textsf emph mbox hbox mathrm mathbf mathit mathsf mathtt bm "
    "boldsymbol underline displaystyle large Large LARGE huge Huge color textcolor colorbox fcolorbox boxed fbox "
    "framebox bf center centering answer ensuremath operatorname begin parbox makebox mathbb pmb".split()
)
_COLOURED = frozenset("color textcolor colorbox fcolorbox begin parbox".split())
_APART = _FONTS | frozenset(
    "end hspace vspace label tag section item".split()
)  # groups before a box
_LEADS_ON = frozenset(
    "therefore implies Rightarrow Longrightarrow iff Leftrightarrow rightarrow longrightarrow Longleftrightarrow "
    "in because colon coloneqq equiv cong so quad qquad hline item triangleq ldots dots vdots bullet par noindent "
    "newline textbf".split()
)  # fmt: skip
_ENDS_IT = frozenset(
    "end blacksquare square Box qed checkmark label tag implies Rightarrow Longrightarrow therefore because iff "
    "Leftrightarrow par newline boxed fbox framebox circ degree noindent medskip bigskip smallskip vspace hspace "
    "AA mu Omega ohm micro pm clubsuit blacklozenge section subsection textcolor color bullet item".split()
)  # fmt: skip
_MODULO = frozenset("pmod bmod mod pod".split())
_ABOUT = frozenset("approx sim simeq approxeq thickapprox thicksim".split())
_TEXTS = frozenset(
    "text textbf textit textrm textnormal mbox mathrm hbox emph operatorname".split()
)
_OPERATORS = "×÷·⋅∗±∓√≠≤≥≮≯¬∝∈∉<>"
_DASHES = "-−–—"
_LONG_DASHES = ("--", "–", "—")
_TAG = re.compile(r"</?[a-zA-Z|_][^<>]{0,40}>|<\|")
_TAG_LAST = re.compile(r"</?[a-zA-Z|_!][^<>]*>\Z|\|>\Z")
_STRUCK = ("<s>", "<del>", "<strike>", "<!--", "\\iffalse")
_STRUCK_ENDS = {
    "<s>": "</s>",
    "<del>": "</del>",
    "<strike>": "</strike>",
    "<!--": "-->",
    "\\iffalse": "\\fi",
}
_RAISED_UNITS = ("^\\circ", "^{\\circ", "^°", "^\\degree", "^\\prime", "^{\\prime")
_PER = re.compile(r"/[\s$~]*+(?:\\(?:mathrm|text)\b|[a-zA-Z]{2})")
_LISTED = re.compile(r"(?:(?:and|or|\Z)|[.;:!?$)*\\\n,])")
_NUMBER = re.compile(r"[-+]?(?:\\?\$)?\.?[0-9]++(?:,[0-9]{3})*+(?:\.[0-9]+)?")
_LABELS = frozenset(
    "step question problem part case exercise example item page line option round number no version".split()
)
_JOINS = frozenset("and or".split())
_COMPUTES = frozenset("plus minus times over multiplied divided".split())
_POWERS = frozenset("squared cubed factorial halved doubled tripled".split())
_SHORT_SCALES = frozenset("k m bn mil mln dozen dozens gross mille permille".split())
_PARTS = frozenset("halves quarters thirds half".split())
_SCALE = re.compile(
    r"(?:tens|dozens?|hundreds?|thousands?|\w{1,12}illions?|lakhs?|crores?|myriads?|googols?)"
)
_TEXT_WORDS = re.compile(r"[a-zA-Z]++|[0-9]")


def whole(text: str, start: int, end: int, content: str) -> str | None:
    r"""The answer that a box and what touches it state together; None: the box is a part of something else.

    Args:
      text: a completion.
      start, end: of its last box, or of the list of its last boxes.
      content: what the box holds.
    Example:
      >>> whole(r"x = \boxed{5} million", 4, 13, "5"), whole(r"-\boxed{5}", 1, 10, "5")
      ('5\\text{ million}', None)
    """
    low = max(text.rfind("\n", 0, start) + 1, start - REACH)
    high = text.find("\n", end, end + REACH)
    before, behind = text[low:start], text[end : high if high != -1 else end + REACH]
    if not before and not behind:
        return None if _struck(text, start) else content
    dollars = _within(before)
    formula = dollars or not _WORD.search(before) and not _WORD.search(behind)
    if (
        _struck(text, start)
        or "{" in before
        and _wrapped(before)
        or before.endswith("~~")
        and behind[:2] == "~~"
    ):
        return None
    left = _left(before, content, formula=formula, dollars=dollars)
    if left is None:
        return None
    right = _right(behind, content, formula=formula, modulo="equiv" in before or "≡" in before)
    if right is None:
        return None
    return left + content + right


def _within(before: str) -> bool:
    """Whether a formula is open at the end of a line's beginning."""
    opened = max(before.rfind(r"\("), before.rfind(r"\["))
    closed = max(before.rfind(r"\)"), before.rfind(r"\]"))
    dollars = before.count("$") - before.count("$$") - before.count("\\$")
    return opened > closed or dollars % 2 == 1


def _struck(text: str, start: int) -> bool:
    if "<" not in text and "iffalse" not in text:
        return False
    for mark in _STRUCK:
        at = text.rfind(mark, 0, start)
        if at != -1 and text.find(_STRUCK_ENDS[mark], at, start) == -1:
            return True
    return False


def _command_before(text: str) -> str:
    """Name of the command that ends a text; "" for none."""
    at = text.rfind("\\")
    return text[at + 1 :] if at != -1 and text[at + 1 :].isalpha() else ""


def _group_before(text: str) -> int:
    """Where the brace opens that the last character of a text closes; -1: not in it."""
    depth = 0
    for i in range(len(text) - 1, -1, -1):
        if text[i] in "{}" and text[i - 1 : i] != "\\":
            depth += 1 if text[i] == "}" else -1
            if depth == 0:
                return i
    return -1


def _wrapped(before: str) -> bool:
    """Whether the box is an argument of more than a font: of a root, a fraction, a line through it."""
    depth = 0
    for i in range(len(before) - 1, -1, -1):
        if before[i] not in "{}" or before[i - 1 : i] == "\\":
            continue
        depth += 1 if before[i] == "}" else -1
        if depth == -1:
            depth = 0
            if _argument(before[:i].rstrip()):
                return True
    return False


def _argument(head: str) -> bool:
    if head[-1:] in ("^", "_", "]"):
        return True
    while head.endswith("}"):
        at = _group_before(head)
        if at == -1:
            return True
        inside, head = head[at:], head[:at].rstrip()
        if _command_before(head) in _COLOURED:
            return "white" in inside
        if not head.endswith("}"):
            return True
    command = _command_before(head)
    return bool(command) and command not in _FONTS


def _left(before: str, content: str, *, formula: bool, dollars: bool) -> str | None:
    """What to put before the content: "" or a sign that it is about that; None: it is a part of something."""
    left = before.rstrip(" $")
    if left[-3:].isalpha() and "\\" not in left and not left.endswith("and"):
        return ""
    while True:
        size = len(left)
        left = left.rstrip(" \t$&{(|\"'`")
        if left.endswith(_LEFT_SPACES):
            left = left[: -max(len(space) for space in _LEFT_SPACES if left.endswith(space))]
        if len(left) > 1 and left[-1] == "~" and left[-2] not in " \t$":
            left = left[:-1]
        if len(left) == size:
            break
    if not left:
        return ""
    touching = left == before.rstrip("${(")
    last, rest = left[-1], left[:-1].rstrip(" \t$")
    command = _command_before(left)
    if command:
        if command in _ABOUT:
            return "" if command == "sim" and not formula else r"\approx "
        return "" if command in _LEADS_ON or command in _FONTS else None
    if last in "≈≃≅~∼":
        return r"\approx "
    if last == "=":
        return None if left[-2:-1] in tuple("<>!~/≠") or rest.endswith("\\not") else ""
    if last == "}":
        at = _group_before(left)
        head = left[:at].rstrip() if at != -1 else ""
        name = _command_before(head)
        part = (name and name not in _APART) or head[-1:] in ("^", "_", "}")
        opens = head.endswith("}") and (not formula or "\\begin" in head[-40:])
        return None if part and not opens else ""
    if last == "+" and rest.endswith(("=", "&")):
        return ""
    if last in _DASHES or last == "+":
        bullet = not rest and not touching and not dollars
        if bullet or left.endswith(_LONG_DASHES) and not dollars:
            return ""
        if formula or touching and not (rest == left[:-1] and rest[-1:].isalpha()):
            return None
        return None if rest[-1:].isdigit() or rest[-1:] in (")", "}") else ""
    if last == ">":
        arrow = left[-2:-1] in tuple("-=>") or _TAG_LAST.search(left[-60:]) or not rest
        return "" if arrow and left[-3:-1] != "!=" else None
    if last == "*":
        return None if rest[-1:].isdigit() or rest[-1:] in (")", "}") else ""
    if last in "^_/":
        return None if rest[-1:].isalnum() or rest[-1:] in (")", "}") else ""
    if last == "%":
        return None
    if last == "!":
        return None if touching and (not rest or left[-2] in " \t$") else ""
    if last in _OPERATORS or last.isnumeric() and not last.isdecimal():
        return None
    if last == "." and touching and rest[-1:].isdigit():
        return None
    return None if _joins_number(left, content, touching=touching, formula=formula) else ""


def _joins_number(left: str, content: str, *, touching: bool, formula: bool) -> bool:
    """Whether a number stands before the box, alone or in a list with it."""
    listed = left.endswith((",", " and", "$and"))
    head = left.removesuffix("and").rstrip(" \t$,")
    value = head[len(head.rstrip("0123456789.,/")) :]
    if not value[-1:].isdigit():
        if formula and touching and not listed and left[-1].isalpha():
            return not left[-2:-1].isalpha() and left[-2:-1] != "\\"
        return False
    ahead = head[: len(head) - len(value)].rstrip(" \t$\\-")
    if value == content.strip("$ ") and not touching:
        return False
    if not listed:
        words = _TEXT_WORDS.findall(ahead[-24:])
        return touching or not (words and words[-1].lower() in _LABELS)
    plain = not left.endswith(",") and ahead[-1:] not in tuple("=^_+*/{)}")
    alone = not ahead or ahead[-1:] in tuple("=:,") or ahead.endswith((" is", " are"))
    return plain or alone


def _right(behind: str, content: str, *, formula: bool, modulo: bool) -> str | None:
    """What to put behind the content: "" or a scale word; None: it is a part of something."""
    at = 0
    spaced = closed = False
    while at < len(behind):
        char = behind[at]
        if char == "\\":
            match = _COMMAND.match(behind, at)
            name = match[0][1:] if match else ""
            if name in _RIGHT_SPACES or name.startswith("n") and name[1:2].isupper():
                closed = closed or name in (")", "]")
                at = match.end()
                continue
            return _behind_command(behind, at, name, modulo=modulo)
        if char in " \t$&~})|\"'`":
            spaced = spaced or char in " \t"
            closed = closed or char == "$"
            at += 1
            continue
        if behind.startswith(("**", "__"), at):
            at += 2
            continue
        break
    rest = behind[at:]
    if not rest:
        return ""
    formula = formula and not closed
    first, then = rest[0], rest[1:].lstrip(" $")
    formal = then[:1].isdigit() or then[:1] in ("\\", "(") or formula
    if first.isnumeric() or first in _OPERATORS.replace("<", "") or first in "^/":
        unit = rest.startswith(_RAISED_UNITS) or first == "/" and _PER.match(rest)
        return "" if unit else None
    if first in "<":
        return "" if _TAG.match(rest) else None
    if first == "!":
        return None if formula else ""
    if first in "*_":
        return None if rest[1:2].isdigit() or rest[1:2] in ("\\", "{", "(") else ""
    if first in _DASHES or first == "+":
        return None if formal and not rest.startswith(("--", "->")) else ""
    if first in "≈~≃":
        return ""
    if first == ".":
        return None if rest[1:2].isdigit() and not spaced else ""
    if first == ",":
        return _behind_comma(rest, content)
    if not first.isalpha():
        return None if first in ":(" and formula and not spaced and then[:1].isdigit() else ""
    return _scaled(_TEXT_WORDS.findall(rest[:60]), formula=formula and not spaced)


def _behind_command(behind: str, at: int, name: str, *, modulo: bool) -> str | None:
    if name in _TEXTS:
        return _scaled(_TEXT_WORDS.findall(behind[at + len(name) + 1 : at + 80]), formula=False)
    if name in _ENDS_IT or name in ("%", "\\", "$", "#") or modulo and name in _MODULO:
        return ""
    return "" if name in _ABOUT or name.startswith("approx") else None


def _behind_comma(rest: str, content: str) -> str | None:
    """None where the next of a list follows."""
    following = rest[1:].lstrip(" \t$")
    if following.startswith((r"\frac", r"\sqrt", r"\dfrac", r"\pi", r"\ldots", r"\dots")):
        return None
    for join in ("and ", "or "):
        following = following.removeprefix(join)
    number = _NUMBER.match(following)
    if number is None or number[0].strip("$,") == content.strip("$ "):
        return ""
    tail = following[number.end() :].lstrip(" $")
    return None if rest[1:2].isdigit() or _LISTED.match(tail) else ""


def _scaled(words: list[str], *, formula: bool) -> str | None:
    """What words right behind a box make of it."""
    if not words:
        return ""
    first = words[0].lower()
    second = words[1].lower() if len(words) > 1 else ""
    if _SCALE.fullmatch(first) or words[0] in _SHORT_SCALES:
        return rf"\text{{ {first}}}"
    counted = second.isdigit() or second in vocabulary.NUMBERS or second in ("by", "a", "the")
    if first in _POWERS or first in _PARTS or first in _COMPUTES and counted:
        return None
    if first.endswith("ths") and nouns.changes(first):
        return None
    if first == "point" and counted and second not in ("by", "a", "the"):
        return None
    if first in _JOINS:
        part = second in ("a", "one") and len(words) > 2 and nouns.changes(words[2])
        return None if second.isdigit() or second in vocabulary.NUMBERS or part else ""
    return None if formula and len(words[0]) == 1 and words[0] not in "AaIK" else ""
