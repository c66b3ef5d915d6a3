r"""What a completion comes to where it marks no answer: the number of its final sentence.

Host side. Reads: nothing. Writes: nothing.

For models that were taught no format. Lenient in the place and in nothing else: a sentence that asks,
hedges, supposes, lists several numbers or breaks off comes to nothing.
"""

from __future__ import annotations

import re

from jaxrl_reason.verify import doubt

MAX_CHARS = 2000  # of the end of a completion that is looked at
_MAX_REMARKS = 3  # sentences behind the final one, such as "I hope this helps!"

_SENTENCE_END = re.compile(r"[.!?][)\"'*]*+(?:\\[\])]|\$\$?)?(?=\s|\Z)|\n")
_NUMBER = re.compile(r"[+-]?\$?\s?(?:\d++(?:,\d{3})*+(?:\.\d++)?|\.\d++)(?:/\d++)?")
_FORMULA = re.compile(r"\\\[|\\\(|\$\$?")
_FORMULA_ENDS = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_WORD = re.compile(r"[A-Za-z]++(?:'[a-z]++)?")
_ENUMERATED = re.compile(r"(?:^|\n) {0,4}\d{1,2}[.)]\s")
_CHOICES = re.compile(r"(?<![A-Za-z])\(?[A-F][).:]\s")
# What stands behind the number and is not it: a aside, a reason.
_ASIDE = re.compile(r"[,(\s]\s?(?:not|rather than|instead of|because|since)\s")
_AND = re.compile(r"\$\s*+(?:and|or)\s*+\$")
_CODE = re.compile(r"\s*+(?:[#>]\s*+)?(?:return|print|def|import|from|while|for|class|assert)\b")

# Words before a number that make it the name of something.
_LABELS = frozenset(
    "step page equation eq question problem figure chapter section table example line part exercise case "
    "method theorem lemma item no number grade level option round and or nor then".split()
)
_HEDGES = frozenset(
    "or either maybe perhaps possibly probably presumably might may could neither nor between anything "
    "impossible doubt suppose assume if unless whether unsure guess unclear unknown choices options".split()
)
_UNKNOWING = frozenset(
    "cannot can't sorry unable insufficient determine don't unclear impossible".split()
)
_AT_FIRST = frozenset("first initially originally beginning start".split())
_GOES_ON = frozenset(
    "to by from get the a an is are of with than into and or then times plus minus per for that so "
    "equals gives when because since which be has have".split()
)
_END_OF_UNIT = frozenset(
    "in on at after before when that which who for from with to by and so if because since as is are "
    "was were now every per remain remains can will would could should makes gives left more altogether "
    "total each remaining overall during while until than all this".split()
)


def number(completion: str) -> str | None:
    """Text of the number, with its unit; None: there is none that the end of the completion stands by.

    Args:
      completion: without a place for its answer (`verify.extract`).
    Example:
      >>> number("5 + 18 = 23. Therefore, Tom has 23 apples."), number("So, 5 + 18 = 23")
      ('23 apples', '23')
      >>> number("So Tom has 23 or 30 apples."), number("Does Tom have 23 apples?")
      (None, None)
    """
    text = completion[-MAX_CHARS:].replace("**", "").rstrip()
    if text.count("```") % 2:
        return None  # ends within a program
    sentence, start = _final_sentence(text)
    if sentence is None or not _states(sentence, text[:start]):
        return None
    found = _value(sentence)
    if found is None:
        return None
    begin, end, value = found
    if doubt.taken_back(text, start + begin, start + end, weighed=True):
        return None
    return value


def _final_sentence(text: str) -> tuple[str | None, int]:
    """The last sentence with a number in it, and where it begins; None: what follows it is no mere remark."""
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    remarks = 0
    for begin, end in reversed(list(zip(ends, ends[1:], strict=False))):
        sentence = text[begin:end]
        if not any(c.isalnum() for c in sentence):
            continue
        words = _words(sentence)
        if any(word in _UNKNOWING for word in words):
            return None, 0
        if any(c.isdigit() for c in sentence):
            return sentence, begin
        remarks += 1
        whole = sentence.rstrip()[-1:] in ".!)?" or not sentence.rstrip()[-1:].isascii()
        asks = sentence.rstrip().endswith("?") and not {"you", "me"} & set(words)
        if remarks > _MAX_REMARKS or not whole or asks or words[:1] in (["no"], ["or"]):
            return None, 0
    return None, 0


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _states(sentence: str, before: str) -> bool:
    """Whether a sentence says a number outright and to its end."""
    plain = sentence.strip()
    words = _words(plain)
    if plain[-1] in "?:,;=+-*/^&(" or plain.endswith(("\\times", "\\cdot")):
        return False
    if words and words[0] in ("let", "suppose", "assume", "if", "possible", "question", "problem"):
        return False
    if words and plain[-1].isalpha() and words[-1] in _GOES_ON:
        return False
    if any(word in _HEDGES for word in words) or _CHOICES.search(plain) or _AND.search(plain):
        return False
    if _CODE.match(plain) or "of which" in plain:
        return False
    if words[-1:] and words[-1] in _AT_FIRST:
        return False
    # "23." below "1. ..." is the number of a line.
    return not (re.fullmatch(r"\d++[.)]", plain) and _ENUMERATED.search(before))


def _value(sentence: str) -> tuple[int, int, str] | None:
    """Begin, end and text of the value: the right side of an equation, a formula, or the last number."""
    aside = _ASIDE.search(sentence)
    if aside and any(c.isdigit() for c in sentence[: aside.start()]):
        sentence = sentence[: aside.start()]
    formula = _last_formula(sentence)
    if formula is not None and not any(c.isdigit() for c in sentence[formula[1] :]):
        begin, end = formula
        inside = sentence[begin:end]
        if not any(c.isdigit() for c in inside):
            return None
        return begin, end, _right_side(inside) + _unit(sentence[end:])
    matches = list(_NUMBER.finditer(sentence))
    if not matches:
        return None
    last = matches[-1]
    equals = sentence.rfind("=")
    if equals != -1 and any(m.start() > equals for m in matches):
        inside = [m for m in matches if m.start() > equals]
        between = sentence[equals + 1 : last.end()]
        if len(inside) == 1 or not _WORD.search(between):
            text = sentence[equals + 1 : last.end()].strip()
            tail = sentence[last.end() :]
            power = re.match(r"[\^!%a-z\\]\S*", tail)
            text += power[0].rstrip(".,") if power else ""
            return (
                equals + 1,
                last.end(),
                text.strip("*$ ") + _unit(tail[power.end() if power else 0 :]),
            )
    return _plain_number(sentence, matches)


def _plain_number(sentence: str, matches: list[re.Match]) -> tuple[int, int, str] | None:
    last = matches[-1]
    before = sentence[: last.start()].rstrip(" *$(\\")
    words = _words(before[-30:])
    if words and before[-1:].isalpha() and words[-1] in _LABELS:
        return None
    if before[-1:] in tuple("+*/^=(;&") or before.endswith("-") and len(matches) > 1:
        return None  # what is computed with it is not said
    if before[-1:] == "," or before[-1:].isdigit():
        return None if len(matches) > 1 else (last.start(), last.end(), last[0])
    tail = sentence[last.end() :]
    if tail[:1] in tuple("+*/^(") or tail[:1].isdigit():
        return None
    percent = tail.lstrip(" \\")[:1] == "%"
    value = last[0].replace("$ ", "$").strip() + ("%" if percent else "")
    return last.start(), last.end(), value if percent else value + _unit(tail)


def _unit(tail: str) -> str:
    """Words behind a number that say what it counts."""
    found = []
    tail = tail.lstrip("*$ \\%)")
    for piece in tail.split(" ")[:6]:
        word = piece.strip("*.,;:!)\"'")
        if (
            not word
            or not _WORD.fullmatch(word)
            and "/" not in word
            or word.lower() in _END_OF_UNIT
        ):
            break
        found.append(word)
        if piece[-1:] in ".,;:!)":
            break
    return " " + " ".join(found) if found else ""


def _last_formula(sentence: str) -> tuple[int, int] | None:
    """Where the last formula in pairs of dollars or TeX's brackets stands; None: a lone dollar is money."""
    found, at = None, 0
    while opener := _FORMULA.search(sentence, at):
        end = sentence.find(_FORMULA_ENDS[opener[0]], opener.end())
        if end == -1:
            return found
        inside = sentence[opener.end() : end]
        if (
            opener[0] == "$"
            and re.match(r"\s?\d", inside)
            and re.search(r"(?<![\\a-z])[a-z]{3}|[-+=]\s?$", inside)
        ):
            return None  # from one price to the next
        at = end + len(_FORMULA_ENDS[opener[0]])
        found = (opener.start(), at)
    return found


def _right_side(formula: str) -> str:
    inside = formula.strip("$").removeprefix("\\(").removeprefix("\\[")
    inside = inside.removesuffix("\\)").removesuffix("\\]")
    return inside.rpartition("=")[2].strip().rstrip(".,")
