r"""Text of a completion and gold answer to a reason: the whole outcome check, without any array.

Host side. Reads: nothing. Writes: nothing.

What worker processes load (`verify.pool`), so nothing here may import jax.

Conventions, where graders differ: rational values are compared exactly (0.333 is not 1/3, 3.14159
is not pi); 50% is 1/2 and not 50 (but a gold 50% takes a bare 50 too); a unit may be missing on
one side, but where both sides have one they must agree, converted exactly; 12_5 equals 12_5 alone;
behind a number a word counts what a plural can count and no word may change it (`verify.nouns`);
6-1, 5! or sin(30) is no final answer unless the gold answer itself is left like that; of "x = 5"
the value counts, of "4 = 5" nothing.
Sets of reals are one however they are written; x > 1, x < 5 means both and x < 1, x > 5 either.
Quantities of a formula of several letters are positive: sqrt(a^2 b) is a sqrt(b), but sqrt(x^2) is
not x. I(0) is a name and not zero. 3:4 is 3/4, but 2:1 is no 2; 0.333... repeats. A constant
of integration may be called c or C, and so may what a set or a family of solutions runs over. 12:30
is a time and no 2:5. A gold float is what it rounds. Of \boxed{50}\% both 50% and 50 are said.
"""

from __future__ import annotations

import functools
import math
import re
import time
from fractions import Fraction
from typing import NamedTuple

from jaxrl_reason.verify import (
    doubt,
    equality,
    extract,
    floats,
    grammar,
    lastly,
    lexer,
    sameness,
    unfinished,
    units,
    values,
    vocabulary,
    wording,
)
from jaxrl_reason.verify.lexer import MAX_DIGITS, Unreadable

MAX_LABELS = 3  # one within the other, as in "(A) x: 5"
MAX_BARE_CHARS = 300  # longest completion that may be nothing but its answer

_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = re.compile(rf"([+-]?)(?:\\?\$)?({_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)")
_FRACTION = re.compile(r"([+-]?)(?:([0-9]+)/([0-9]+)|\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\})")
_LETTER = re.compile(
    r"(?:(?i:option|choice|answer)\s+)?(?:([A-J])|\(\s*([A-Ja-j])\s*\)|([A-J])[).:])"
)
_LABELLED = re.compile(
    r"(?:\(([A-J])\)|([A-J])[).:])[\s:.]*+(?!(?:or|and|not)\b|[,;/&]|\(?[A-J]\))(\S.*)", re.S
)
_TWO_SENTENCES = re.compile(r"[.!?]\s+\w|;")
_HOUR = re.compile(r"\d{1,2}:0\d")  # 12:05, which as a ratio would be 12:5
_TIME = re.compile(r"(?:[01]?\d|2[0-4]):[0-5]\d")  # may be a time; a ratio too, in its lowest terms
_WORDS = re.compile(r"[^\W\d_]+(?:[\s'\-.,()&]+[^\W\d_]+)*")
_EULER = re.compile(r"(?<=[0-9])e(?=\s*[+-]\s*[0-9])")  # 2e-1, where e is wanted
_WORDS_AND_NUMBERS = re.compile(r"[A-Za-z]{3,}(?:[ ,.:#-]{1,3}(?:[A-Za-z]+|[0-9]+))+")  # March 14
_WRAP = re.compile(
    r"\\(?:text|mathrm|mbox|textrm|textnormal|operatorname|textbf|textit|rm|mathbf)\s*\{([^{}]*)\}"
)

_FAULTS = (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


class UnreadableGold(ValueError):
    """A gold answer with which nothing can be compared."""


class Answer(NamedTuple):
    """What a text was read as; None where it is not that."""

    text: str  # cleaned
    value: Fraction | None = None  # a plain number
    tree: tuple | None = None  # of the text without its unit
    unit: units.Unit | None = None
    whole: tuple | None = None  # of the text with its unit taken as letters
    words: str | None = None
    letter: str | None = None

    @property
    def readable(self) -> bool:
        """Whether it can be compared with anything."""
        return any(part is not None for part in (self.value, self.tree, self.words, self.letter))


def judge(completion: str, gold: str, timeout_s: float) -> tuple[str, str | None]:
    r"""Reason and extracted answer; the answer must stand in a place that says so.

    Args:
      completion: text of a policy, however hostile.
      gold: the right answer, on its own or in a box.
      timeout_s: seconds after which the comparison gives up.
    Returns:
      (reason, answer): correct, wrong, unparsable or timeout; `answer` as in `Verdict`.
    Raises:
      UnreadableGold: gold cannot be read.
    Example:
      >>> judge(r"so \boxed{\frac{\sqrt{2}}{2}}", r"1/\sqrt{2}", 1.0)
      ('correct', '\\frac{\\sqrt{2}}{2}')
    """
    return _checked(completion, gold, timeout_s, lenient=False)


def judge_leniently(completion: str, gold: str, timeout_s: float) -> tuple[str, str | None]:
    """As `judge`; but without any place for the answer, the number of the final sentence is it.

    Example:
      >>> judge_leniently("She adds 5 and 18. Therefore, Tom has 23 apples.", "23", 1.0)
      ('correct', '23 apple^1')
    """
    return _checked(completion, gold, timeout_s, lenient=True)


def _checked(
    completion: str, gold: str, timeout_s: float, *, lenient: bool
) -> tuple[str, str | None]:
    deadline = time.monotonic() + timeout_s
    expected = readable_gold(gold)
    try:
        reason, answer = "unparsable", None
        for found in _readings(lexer.plain_signs(completion), expected, lenient=lenient):
            reason, answer = _compared(found, expected, deadline)
            if reason == "correct":
                break
        return reason, answer
    except values.OutOfTime:
        return "timeout", None
    except _FAULTS:
        # Text that a policy wrote must not end a run, whatever it finds in this package.
        return "unparsable", None


def _compared(answer: Answer, expected: Answer, deadline: float) -> tuple[str, str | None]:
    if not answer.readable:
        return "unparsable", None
    if answer.tree is None and answer.value is None and answer.letter is None:
        if expected.words is None:
            return "unparsable", None  # words where maths is asked for
    same_unit = answer.unit is None or expected.unit is None
    if answer.value is not None and expected.value is not None and same_unit:
        right = floats.same(expected.text, expected.value, answer.value)
        return ("correct" if right else "wrong"), str(answer.value)
    right = matches(expected, answer, deadline)
    text = canonical(answer, deadline)
    if text is None and not right:
        return "unparsable", None
    return ("correct" if right else "wrong"), text or answer.text


def plain_number(text: str) -> Fraction | None:
    """Exact value of a plain number; `verify.answers.parse_number` is its public name."""
    if len(text) > 2 * MAX_DIGITS:
        return None
    text = text.strip()
    if len(text) <= MAX_DIGITS and text.isascii() and text.isdecimal():
        return Fraction(int(text))
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = text[1:-1].strip()
    if len(text) > MAX_DIGITS and sum(c.isdigit() for c in text) > MAX_DIGITS:
        return None
    match = _DECIMAL.fullmatch(text)
    if match:
        digits = match[2].replace(",", "")
        value = Fraction(int(digits)) if digits.isdecimal() else Fraction(digits)
        return -value if match[1] == "-" else value
    match = _FRACTION.fullmatch(text)
    if not match:
        return None
    top, bottom = int(match[2] or match[4]), int(match[3] or match[5])
    if bottom == 0:
        return None
    return Fraction(-top if match[1] == "-" else top, bottom)


def readable_gold(gold: str) -> Answer:
    """A gold answer, read.

    Raises:
      UnreadableGold: it cannot be, so that nothing can be compared with it; names it.
    """
    try:
        expected = read_gold(gold)
    except _FAULTS:
        expected = Answer("")
    if not expected.readable:
        raise UnreadableGold(
            f"gold answer {gold[:80]!r}: cannot be read, so nothing can be compared with it"
        )
    return expected


@functools.lru_cache(maxsize=4096)
def read_gold(gold: str) -> Answer:
    """A gold answer as it stands in a data set: bare, or in a box."""
    if extract.has_place(gold):
        return read(extract.final_answer(gold) or "")
    return read(gold)


def read(text: str) -> Answer:
    r"""An answer on its own, read in every way that it can be.

    Args:
      text: what stands in the place of an answer.
    Returns:
      An Answer; not `readable` if it is none.
    Example:
      >>> read("12").value, read("(C)").letter, read(r"\text{odd}").words, read("???").readable
      (Fraction(12, 1), 'C', 'odd', False)
    """
    value = plain_number(text)
    if value is not None:
        return _number_read(text.strip(), value)
    if len(text) > extract.MAX_ANSWER_CHARS:
        return Answer("")
    cleaned = lexer.clean(text)
    value = plain_number(cleaned)
    if value is not None:
        return _number_read(cleaned, value)
    if not cleaned:
        return Answer("")
    plain = " ".join(_plain(cleaned).replace("{", " ").replace("}", " ").split())
    letter = _LETTER.fullmatch(plain)
    labelled = None if letter else _LABELLED.fullmatch(plain)
    words = _WORDS.fullmatch(plain.rstrip(" .)")) if len(plain) <= 200 else None
    tree = unit = whole = None
    number, unit = units.split(cleaned)
    tree = _parsed(number)
    if unit is not None:
        whole = _parsed(cleaned)
        if tree is None:
            tree, unit, whole = whole, None, None
    found = letter or labelled
    tree = vocabulary.based(cleaned) or tree
    if (
        words
        and " and " in plain
        and (value := plain_number(wording.in_figures(plain))) is not None
    ):
        return _number_read(cleaned, value)  # two and a half
    if tree is not None and words and vocabulary.counted(plain.casefold()) is not None:
        tree = vocabulary.said(plain.casefold())  # six, which is no product of three letters
    if tree is None and (amount := units.compound(cleaned)):
        tree, unit = ("num", amount[0]), amount[1]
    if not (tree or words or found):
        bare = wording.without_comment(cleaned)
        if bare is not None:
            return read(bare)
        named = wording.value_named(cleaned)
        tree = None if named is None else _parsed(named)  # `matches` reads the rest of it
    if tree is None:
        if (value := plain_number(wording.in_figures(plain))) is not None:
            return _number_read(cleaned, value)
        tree = vocabulary.said(_plain_words(plain)) if words else None
        words = words or (_WORDS_AND_NUMBERS.fullmatch(plain) if len(plain) <= 200 else None)
    return Answer(
        cleaned,
        tree=tree,
        unit=unit,
        whole=whole,
        words=_plain_words(plain) if words else None,
        letter=next(g for g in found.groups() if g).upper() if found else None,
    )


def _number_read(text: str, value: Fraction) -> Answer:
    money = "$" in text and text[-1] != "$"
    return Answer(text, value=value, unit=units.DOLLAR if money else None)


def matches(gold: Answer, answer: Answer, deadline: float, labels: int = 0) -> bool:
    """Whether two answers are the same; `labels` have been taken off the second already.

    Raises:
      values.OutOfTime: the deadline passed.
    """
    if gold.letter is not None and _LETTER.fullmatch(" ".join(_WRAP.sub(r"\1", gold.text).split())):
        return answer.letter == gold.letter
    if "".join(gold.text.split()) == "".join(answer.text.split()):
        return True
    constant = gold.tree is not None and gold.tree[0] == "const"
    if gold.words is not None and gold.words == answer.words and not constant:
        return True
    letters = wording.chosen(_plain(gold.text))
    if letters and letters == wording.chosen(_plain(answer.text)):
        return True
    if gold.tree is None and gold.value is None:
        return False
    named = wording.value_named(answer.text)
    if named is not None and (gold.value is not None or gold.tree[0] != "rel"):
        return matches(gold, read(named), deadline, labels)
    if named is None and gold.tree is not None and gold.tree[0] == "rel":
        asked = wording.value_named(gold.text)  # m + n = 14, where the answer is a bare 14
        bare = answer.tree is None or answer.tree[0] != "rel"
        if asked is not None and bare and not set(gold.text) & set("xyz"):
            return matches(read(asked), answer, deadline, labels)
    labelled = _LABELLED.fullmatch(_plain(answer.text))
    if labelled and labels < MAX_LABELS:
        return matches(gold, read(labelled[3]), deadline, labels + 1)
    if gold.value is not None and floats.is_float(gold.text) and answer.tree is not None:
        return _near_float(gold, answer, deadline)
    answer = _as_asked(gold, answer)
    unevaluated = answer.tree is not None and unfinished.operations(answer.tree) - {"pow"}
    if unevaluated and (gold.tree is None or unfinished.is_finished(gold.tree)):
        return False
    if gold.tree is not None and gold.tree[0] == "pct" and answer.unit is None:
        # "28%" asks for a percentage; a bare 28 leaves its sign out, as units may be left out.
        tree = _tree(answer)
        if tree is not None and equality.equal(gold.tree[1], tree, deadline):
            return True
    return _quantities_match(gold, answer, deadline)


def _near_float(gold: Answer, answer: Answer, deadline: float) -> bool:
    """Whether an expression has the value that a program rounded to a gold float."""
    if answer.tree[0] == "rel" and answer.tree[1] == ("=",) and answer.tree[2][0] == "var":
        answer = answer._replace(tree=answer.tree[3])
    if sameness.variables(answer.tree) or unfinished.operations(answer.tree) - {"pow"}:
        return False
    try:
        value = values.evaluate(answer.tree, {}, deadline)
    except Unreadable:
        return False
    if not isinstance(value, Fraction):
        value = None if value.im else Fraction(value.re)
    return value is not None and floats.same(gold.text, gold.value, value)


def _as_asked(gold: Answer, answer: Answer) -> Answer:
    """The answer in the reading that the gold one suggests, where it has two."""
    if gold.tree is None:
        return answer
    if gold.tree[0] == "matrix" and answer.tree is not None and answer.tree[0] == "binom":
        return answer._replace(tree=("matrix", 1, *answer.tree[1:]))  # a vector in TeX's old way
    if ("const", "e") in sameness.nodes(gold.tree) and _EULER.search(answer.text):
        return read(_EULER.sub(" e ", answer.text))
    return answer


def _quantities_match(gold: Answer, answer: Answer, deadline: float) -> bool:
    a, b = _tree(gold), _tree(answer)
    if a is None or b is None:
        return False
    if a[0] == b[0] == "ratio" and any(
        _is_clock(t) or _TIME.fullmatch(t.text) for t in (gold, answer)
    ):
        return a == b and (gold.unit == answer.unit or None in (gold.unit, answer.unit))
    if (a[0] == "ratio" and _is_clock(gold)) or (b[0] == "ratio" and _is_clock(answer)):
        return False  # of any other a:b the value is a/b
    if gold.whole is not None or answer.whole is not None:
        # "2 m" may be two metres or two times m: equal if either reading agrees on both sides.
        first, second = gold.whole or a, answer.whole or b
        if equality.equal(first, second, deadline):
            return True
    if gold.unit is None and answer.unit is None:
        return equality.equal(a, b, deadline)
    one = units.Unit(Fraction(1), ())
    x, y = gold.unit or one, answer.unit or one
    if x.dimension and y.dimension:
        if x.dimension != y.dimension:
            return False
    elif x.dimension or y.dimension:
        # One side leaves its unit out; a dozen is a number all the same.
        x, y = (u if not u.dimension else one for u in (x, y))
    return equality.equal(_times(a, x.factor), _times(b, y.factor), deadline)


def _is_clock(answer: Answer) -> bool:
    """Whether hours and minutes alone can be meant: am or pm, 12:05, or 12:30, which is no ratio in lowest terms."""
    if _TIME.fullmatch(answer.text) and answer.tree is not None and answer.tree[0] == "ratio":
        hours, minutes = (int(part) for part in answer.text.split(":"))
        if math.gcd(hours, minutes) > 1:
            return True
    named = answer.unit is not None and answer.unit.dimension in ((("am", 1),), (("pm", 1),))
    return named or _HOUR.fullmatch(answer.text) is not None


def _times(tree: tuple, factor: Fraction) -> tuple:
    if factor == 1:
        return tree
    if tree[0] in ("list", "set", "seq"):
        skip = 3 if tree[0] == "seq" else 1
        return (*tree[:skip], *(_times(item, factor) for item in tree[skip:]))
    if tree[0] == "rel":
        return (*tree[:-1], _times(tree[-1], factor))
    return ("mul", ("num", factor), tree)


def canonical(answer: Answer, deadline: float) -> str | None:
    """One text for equal numbers, so that votes can be counted; other answers as they stand.

    None: an expression that has no value, such as 3/0, or one beyond the size limits.
    """
    if answer.letter is not None:
        return answer.letter
    tree, unit = _tree(answer), answer.unit
    if tree is not None and tree[0] == "rel" and tree[1] == ("=",) and tree[2][0] == "var":
        tree = tree[3]
    value = None
    if tree is not None and not sameness.variables(tree):
        try:
            value = values.evaluate(tree, {}, deadline)
        except Unreadable:
            if tree[0] in unfinished.LITERAL:
                return None
    if isinstance(value, Fraction) and max(map(int.bit_length, value.as_integer_ratio())) < 9999:
        if unit is None or unit.dimension == (("dollar", 1),):
            return str(value)
        names = " ".join(f"{name}^{power}" for name, power in unit.dimension)
        return f"{value * unit.factor} {names}".strip()
    text = answer.words if answer.tree is None and answer.words else " ".join(answer.text.split())
    return text.encode("utf-8", "replace").decode()


def _readings(completion: str, gold: Answer, *, lenient: bool) -> list[Answer]:
    """What a completion answers; twice where it can be read in two ways."""
    place = extract.place(completion)
    if place is not None:
        if place.text is None:
            return []
        answer = read(place.text)
        if not place.percent or "%" in place.text:
            return [answer]
        return [
            read(rf"{{{place.text}}}\%"),
            answer,
        ]  # a percentage, asked for with or without its sign
    if len(completion) > extract.MAX_CHARS:
        return []
    bare = _bare(completion, gold)
    if bare is not None or not lenient:
        return [] if bare is None else [bare]
    text = lastly.number(extract.own_turn(completion, marked=False))
    return [] if text is None else [read(text)]


def _bare(completion: str, gold: Answer) -> Answer | None:
    """A completion that is nothing but an answer, which needs no mark; words are none, but for the gold ones."""
    text = completion.strip()
    if len(text) > MAX_BARE_CHARS or "\n" in text or not text:
        return None
    formula = _only_formula(text)
    answer = read(text if formula is None else formula)
    if answer.tree is None and answer.value is None and answer.letter is None:
        return answer if answer.words is not None and answer.words == gold.words else None
    return answer


def _only_formula(text: str) -> str | None:
    """The formula of a sentence that holds one and no more, and stands by it."""
    found = list(wording.formulas(text))
    if len(found) != 1 or len(found[0]) == len(text):
        return None
    start = text.index(found[0])
    end = start + len(found[0])
    rest = text[:start] + text[end:]
    if not any(c.isalpha() for c in rest) or any(c.isdigit() for c in rest):
        return None
    if _TWO_SENTENCES.search(rest) or doubt.taken_back(text, start, end, weighed=True):
        return None
    return found[0]


def _tree(answer: Answer) -> tuple | None:
    return ("num", answer.value) if answer.value is not None else answer.tree


def _parsed(text: str) -> tuple | None:
    try:
        return grammar.parse(text)
    except (Unreadable, RecursionError):  # the caller may stand deep in the stack already
        return None


def _plain(text: str) -> str:
    return " ".join(_WRAP.sub(r" \1 ", text).split())


def _plain_words(text: str) -> str:
    words = re.findall(r"[^\W\d_]+|\d+", text)
    if len(words) > 1:  # a capital A before no word is a letter to choose
        words = [
            word
            for word, after in zip(words, [*words[1:], ""], strict=True)
            if word.casefold() not in ("the", "an", "a", "and")
            or word == "A"
            and not after.islower()
        ]
    return " ".join(words).casefold()
