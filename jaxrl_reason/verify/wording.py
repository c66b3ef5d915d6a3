r"""Words around an answer: what names the value, what only comments on it, several letters at once.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from jaxrl_reason.verify import vocabulary

MAX_CHARS = 400  # longest answer that is looked at

_TEXT = r"\\(?:text|mathrm|mbox|textrm|textnormal|textbf|operatorname)\s*\{([^{}]*)\}"
# What may stand before "=" and asks for nothing to be solved: words, a + b, |AB|, an integral.
_TERM = r"[0-9]{0,4}[a-z](?:\^\{?[0-9]\}?)?"
_NAME = re.compile(
    rf"(?:{_TEXT}\s*+(?:_\s*+(?:\{{[^{{}}=]*\}}|\w)\s*+)?(?:\([^()=]*\))?"
    rf"|{_TERM}(?:\s*(?:[+-]\s*)?{_TERM}){{1,4}}"
    r"|(?:\\mathbb\s*\{?[PE]\}?|\\Pr|P|E|\\operatorname\{(?:Var|E|P)\})\s*(?:[(\[][^()\[\]]*[)\]])?"
    r"|[A-Z]{2}(?:\s*[+-]\s*[A-Z]{2}){1,3}|[a-zA-Z]\([^()=]*\)|(?:\\#|#)\s*[A-Z]"
    r"|\|\s*[A-Z]{2}\s*\||m?\s*\\angle\s*[A-Z]{1,3}|\\triangle\s*[A-Z]{3}|\[[A-Z]{3,6}\]"
    r"|\\(?:lim|int|sum|prod|det|min|max)(?![a-z])[^=]*(?:=[^=]*)?"
    r")"
)
_ANSWER = re.compile(
    r"\s*+(?:the\s++)?(?:final\s++)?(?:answer|result|value|total)\s*+(?:is\s*+)?(?::\s*+)?"
    r"|\s*+(?:so\s++|thus\s++)?(?:the|his|her|its)\s[a-z\s]{2,60}\b(?:is|are|equals)\s*+(?::\s*+)?"
    r"|\s*(?:there\s+(?:is|are)|exactly|a\s+total\s+of)\s*",
    re.I,
)
_SENTENCE = re.compile(
    r"(?:The|His|Her|There)\s[A-Za-z\s]{0,60}\b(?:is|are|equals)\s++(?=[-$\\(0-9])"
)
_LABEL = re.compile(rf"{_TEXT}\s*+([:=]?)\s*+(?=\S)")
_COMMENT = re.compile(
    rf"(?:\(\s*{_TEXT}\s*\)|\\(?:text|mathrm)\s*\{{\s*\(([^(){{}}]*)\)[\s.]*\}}"
    r"|\(\s*([A-Za-z]{3}[A-Za-z\s]*)\))$"
)
_CONDITION = re.compile(
    r"\\(?:text|mathrm)\s*\{\s*+(?:,\s*+)?(?:for|where|with)\s+"
    r"(?:any|some|all|every|an?|arbitrary)\b([^{}]*)\}\s*(?:[A-Za-z](?:\s*\\in\s*\\mathbb\s*\{?[A-Z]\}?)?)?$"
)
_SIGNED = re.compile(r"(?:negative|minus)\s+([0-9][0-9.,/]*)", re.I)
_AND_PART = re.compile(
    r"([0-9]{1,9}|[a-z]{3,20}) and (?:a|one) (half|third|quarter|fourth|fifth|sixth|eighth|tenth)"
)
_POINT = re.compile(r"([0-9]{1,9}|[a-z]{3,20}) point ([a-z]{3,5}(?: [a-z]{3,5}){0,8})")
_ODDS = re.compile(r"([0-9]{1,9}) (?:in|out of) ([0-9]{1,9})")  # 1 in 5
_DOUBT = re.compile(r"\b(?:or|not|no|never|wrong|false|incorrect|without|except|\d+)\b|\d", re.I)
_ANOTHER = re.compile(
    r"\b(?:opposite|reciprocal|inverse|twice|double"
    r"|(?:negative|square|cube|half|third|anything|nothing|all) (?:of|but))\b",
    re.I,
)  # value than the one that is named
_FORMULA = re.compile(r"\\[(\[]|\$\$?")
_FORMULA_ENDS = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_CHOSEN = re.compile(r"\(?[A-J]\)?(?:\s*+(?:,\s*+)?(?:and\s++)?\(?[A-J]\)?)+")


def value_named(text: str) -> str | None:
    r"""What stands behind "Area =" or "the answer is"; None: no such words.

    Example:
      >>> value_named(r"\text{Area} = 12"), value_named("m+n=14"), value_named("2x = 10")
      ('12', '14', None)
    """
    if len(text) > MAX_CHARS:
        return None
    for head, equals, tail in (text.partition("="), text.rpartition("=")):
        if not (equals and tail.strip()):
            break
        match = _NAME.fullmatch(head.strip())
        balanced = head.count("{") == head.count("}")
        if match and balanced and not _denied(match[1] or ""):
            letters = re.findall(r"[a-z]", head) if "\\" not in head else []
            curve = (
                "^" in head and bool(letters) and set(letters) <= set("xyz")
            )  # of no value, but of points
            if len(set(letters)) == len(letters) and not curve:
                return tail.strip()
    match = _LABEL.match(text)
    if match and (_ANSWER.fullmatch(match[1]) or match[1].strip().endswith(":") or match[2]):
        if not _denied(match[1]):
            return text[match.end() :].strip()
    match = _SENTENCE.match(text)
    return text[match.end() :].strip() if match and not _denied(match[0]) else None


def _denied(words: str) -> bool:
    return _DOUBT.search(words) is not None or _ANOTHER.search(words) is not None


def in_figures(text: str) -> str:
    """A number that words join or negate, in figures alone; "" for anything else.

    Example:
      >>> in_figures("negative 2.5"), in_figures("1 out of 5"), in_figures("less than 5")
      ('-2.5', '1/5', '')
    """
    if signed := _SIGNED.fullmatch(text):
        return "-" + signed[1]
    if mixed := _AND_PART.fullmatch(text.lower()):
        whole, part = _counted(mixed[1]), vocabulary.counted(f"one {mixed[2]}")
        return "" if whole is None or part is None else str(whole + part)
    if decimal := _POINT.fullmatch(text.lower()):
        whole, places = (
            _counted(decimal[1]),
            [vocabulary.NUMBERS.get(w, "") for w in decimal[2].split()],
        )
        return (
            f"{whole}.{''.join(places)}"
            if whole is not None and all(len(p) == 1 for p in places)
            else ""
        )
    odds = _ODDS.fullmatch(text)
    return f"{odds[1]}/{odds[2]}" if odds else ""


def _counted(text: str) -> Fraction | None:
    return Fraction(text) if text.isdecimal() else vocabulary.counted(text)


def without_comment(text: str) -> str | None:
    r"""Text without the words in brackets at its end; None: there are none, or they take it back.

    Example:
      >>> without_comment(r"x=2 (\text{double root})"), without_comment(r"4 (\text{not } 5)")
      ('x=2', None)
    """
    if len(text) > MAX_CHARS:
        return None
    match = _COMMENT.search(text) or _CONDITION.search(text)
    if not match or _DOUBT.search(next((group for group in match.groups() if group), "")):
        return None
    before = text[: match.start()].strip()
    if match.re is _CONDITION:
        before = before.removesuffix(",").strip()
    return before or None


def chosen(text: str) -> frozenset[str] | None:
    """Letters of several choices, written "A, C" or "AC"; None for anything else.

    Example:
      >>> chosen("A, C") == chosen("AC"), chosen("A")
      (True, None)
    """
    if len(text) > 60 or not _CHOSEN.fullmatch(text):
        return None
    letters = re.findall(r"[A-J]", text)
    return frozenset(letters) if len(set(letters)) == len(letters) else None


def formulas(text: str) -> Iterator[str]:
    r"""Formulas in dollar signs or TeX's brackets, with them.

    Example:
      >>> list(formulas(r"so $x = 5$, or \(y\)"))
      ['$x = 5$', '\\(y\\)']
    """
    at = 0
    while opener := _FORMULA.search(text, at):
        sign = _FORMULA_ENDS[opener[0]]
        end = text.find(sign, opener.end() + 1)
        at = opener.start() + 1
        if end != -1 and not ("$" in sign and "$" in text[opener.end() : end]):
            at = end + len(sign)
            yield text[opener.start() : at]
