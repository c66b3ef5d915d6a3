"""Final answers that are plain numbers: find the answer, read it exactly, compare.

Host side. Reads: nothing. Writes: nothing.

Strict on purpose: an answer that is not clearly one number is "unparsable", which is counted apart
from "wrong". Text is matched by regular expressions over a bounded piece and read into exact
fractions; nothing is ever evaluated, so "6-1", "5!" and "4=5" are not the number 5, and 3.14159 is
not pi.
"""

from __future__ import annotations

import re
from fractions import Fraction

from jaxrl_reason.types import Verdict

MAX_CHARS = 1_000_000  # longest completion that is searched
MAX_DIGITS = 100  # in one number, both sides of a fraction together
_MAX_ANSWER_CHARS = 400  # room for MAX_DIGITS, separators, markup and white space

_BOX = r"\boxed{"
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = re.compile(rf"([+-]?)(?:\\?\$)?({_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)")
_FRACTION = re.compile(r"([+-]?)(?:([0-9]+)/([0-9]+)|\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\})")


def verify_answer(completion: str, gold: str, *, timeout_s: float = 2.0) -> Verdict:
    r"""Reward 1 if the completion's final answer and `gold` are the same number, exactly.

    The answer is what the last `\boxed{...}` holds; without a box, all text after the last "####";
    without that, all text after the last "answer is" (any case; a colon before and a full stop
    behind are allowed). It must be one number (`parse_number`) and nothing else. A last box that
    never closes is unparsable: earlier ones were not final.

    Safe in any thread, since no signal and no process is used. There is no clock either: time is
    bounded by the input cap. A completion over MAX_CHARS is unparsable unread; below it, the search
    for the marker is a few linear scans (milliseconds for a million characters) and all else works
    on at most a few hundred characters. So the deadline is kept for any `timeout_s` down to about
    0.1 s, and the reason "timeout" does not occur.

    Args:
      completion: text of a policy, however hostile.
      gold: one number.
      timeout_s: seconds, > 0; see above for how it is kept.
    Returns:
      Verdict with reason correct, wrong or unparsable. `answer` is the number in lowest terms
      ("1/2" for 0.5), so that equal answers are equal texts, as majority votes need; None where
      unparsable.
    Raises:
      ValueError: gold is not a number, or timeout_s is not positive.
    Example:
      >>> verify_answer(r"so we get \boxed{1,200.50}", "1200.5")
      Verdict(reward=1.0, answer='2401/2', reason='correct')
      >>> verify_answer("#### 50%", "50").reason
      'unparsable'
    """
    if not timeout_s > 0:
        raise ValueError(f"timeout_s = {timeout_s}: must be > 0 seconds")
    expected = parse_number(gold)
    if expected is None:
        raise ValueError(
            f"gold answer {gold[:80]!r}: not a plain number, so nothing can be compared with it"
        )
    text = final_answer(completion)
    number = None if text is None else parse_number(text)
    if number is None:
        return Verdict(reward=0.0, answer=None, reason="unparsable")
    right = number == expected
    return Verdict(float(right), str(number), "correct" if right else "wrong")


def final_answer(completion: str) -> str | None:
    r"""The text in the place of the final answer, whatever it says; None without such a place.

    Args:
      completion: any text; over MAX_CHARS it counts as having no answer.
    Returns:
      Text without white space around it. One of more than a few hundred characters cannot be one
      number and is cut, still too long to be read as one.
    Example:
      >>> final_answer(r"\boxed{3}, no: \boxed{\frac{1}{2}}")
      '\\frac{1}{2}'
      >>> final_answer("The answer is: 7.")
      '7'
    """
    if len(completion) > MAX_CHARS:
        return None
    start = completion.rfind(_BOX)
    if start != -1:
        return _braced(completion, start + len(_BOX))
    start = completion.rfind("####")
    if start != -1:
        return _bounded(completion[start + 4 :])
    lowered = completion.lower()
    start = lowered.rfind("answer is")
    if start == -1:
        return None
    tail = lowered[start + len("answer is") :].strip()
    return _bounded(tail.removeprefix(":").removesuffix("."))


def parse_number(text: str) -> Fraction | None:
    r"""Exact value of a plain number.

    Accepted: an optional sign, an optional dollar sign, ASCII digits with or without thousands
    separators, an optional decimal part; or a fraction of two whole numbers, a/b or \frac{a}{b}.
    Dollar signs around the whole (maths mode) are taken off. Percent signs, units, exponents, words
    and arithmetic are refused.

    Args:
      text: any text.
    Returns:
      The number; None if the text is not exactly one, has over MAX_DIGITS digits, or divides by
      zero.
    Example:
      >>> parse_number("-$1,234.50"), parse_number("6/4"), parse_number("5 cm")
      (Fraction(-2469, 2), Fraction(3, 2), None)
    """
    if len(text) > _MAX_ANSWER_CHARS:
        return None
    text = text.strip()
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = text[1:-1].strip()
    if sum(c.isdigit() for c in text) > MAX_DIGITS:
        return None
    match = _DECIMAL.fullmatch(text)
    if match:
        value = Fraction(match[2].replace(",", ""))
        return -value if match[1] == "-" else value
    match = _FRACTION.fullmatch(text)
    if not match:
        return None
    top, bottom = int(match[2] or match[4]), int(match[3] or match[5])
    if bottom == 0:
        return None
    return Fraction(-top if match[1] == "-" else top, bottom)


def _bounded(text: str) -> str:
    # One character more than parse_number reads, so that the cut text is refused and not read as a
    # shorter number.
    return text.strip()[: _MAX_ANSWER_CHARS + 1]


def _braced(text: str, start: int) -> str | None:
    """What stands before the brace that closes the one before `start`; None: not in reach."""
    depth = 1
    for i in range(start, min(len(text), start + _MAX_ANSWER_CHARS)):
        if text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return text[start:i].strip()
    return None
