r"""Outcome of a completion: the one call that tasks and notebooks make.

Host side. Reads: nothing. Writes: nothing.

Strict on purpose, unless asked otherwise: an answer that cannot be read is "unparsable", which is
counted apart from "wrong". Text is read by a grammar of our own into exact fractions or numbers of
fifty digits and more (`verify.judge` lists the conventions); nothing is ever evaluated as a program.
"""

from __future__ import annotations

from fractions import Fraction

from jaxrl_reason.types import Verdict
from jaxrl_reason.verify import judge
from jaxrl_reason.verify.extract import MAX_ANSWER_CHARS, MAX_CHARS, final_answer
from jaxrl_reason.verify.lexer import MAX_DIGITS

__all__ = [
    "MAX_ANSWER_CHARS",
    "MAX_CHARS",
    "MAX_DIGITS",
    "check_gold",
    "final_answer",
    "parse_number",
    "verify_answer",
]

EXTRACTS = {"strict": judge.judge, "flexible": judge.judge_leniently}


def verify_answer(
    completion: str, gold: str, *, timeout_s: float = 2.0, extract: str = "strict"
) -> Verdict:
    r"""Reward 1 if the completion's final answer and `gold` are the same answer.

    The answer is what the last `\boxed{...}` holds; without a box, the line after the last "####";
    without that, the sentence after the last "answer is"; without any of them, the completion
    itself if it is one line and nothing but an answer. A last box that never closes is unparsable:
    earlier ones were not final. So is an answer that the words around it deny or hedge: "not 5",
    "5 or 6", "I doubt that the answer is 5".

    Of a completion of over MAX_CHARS characters nothing is looked at, and an answer of over
    MAX_ANSWER_CHARS is not read: both are unparsable. (A gold answer of that length cannot be read
    either.)

    Safe in any thread, since no signal and no process is used. Reading takes time in proportion to
    the text, a tenth of a second for the longest; comparing is bounded in size before anything is
    computed, and looks at the clock in between. So a call ends within timeout_s and that tenth of
    processor time. `verify.pool` adds a process that can be killed.

    Args:
      completion: text of a policy, however hostile.
      gold: number, expression, tuple, set, interval, matrix, equation, choice letter or words.
      timeout_s: seconds, > 0.
      extract: "strict", or "flexible": without any of the places above, the number of the final
        sentence is the answer ("Therefore, Tom has 23 apples."), unless it is hedged.
    Returns:
      Verdict with reason correct, wrong, unparsable or timeout. `answer` is a number in lowest
      terms ("1/2" for 0.5) where it is rational, so that equal answers are equal texts, as
      majority votes need; else cleaned text; None where unparsable.
    Raises:
      ValueError: gold cannot be read (`judge.UnreadableGold`, which names it; `check_gold` asks
        for that alone), or timeout_s is not positive, or `extract` is another word.
    Example:
      >>> verify_answer(r"so we get \boxed{1,200.50}", "1200.5")
      Verdict(reward=1.0, answer='2401/2', reason='correct')
      >>> verify_answer(r"#### 2\sqrt{3}", r"\sqrt{12}").reason
      'correct'
      >>> verify_answer("I tried 5, 6, 7", "7").reason
      'unparsable'
      >>> verify_answer("5 + 18 = 23. So Tom has 23 apples.", "23", extract="flexible").reward
      1.0
    """
    if not timeout_s > 0:
        raise ValueError(f"timeout_s = {timeout_s}: must be > 0 seconds")
    if extract not in EXTRACTS:
        raise ValueError(f"extract = {extract!r}: must be one of {', '.join(EXTRACTS)}")
    reason, answer = EXTRACTS[extract](completion, gold, timeout_s)
    return Verdict(float(reason == "correct"), answer, reason)


def check_gold(gold: str) -> None:
    r"""Refuses a gold answer with which nothing could be compared; for loaders of data sets.

    Args:
      gold: answer text of a record.
    Raises:
      ValueError: it cannot be read.
    Example:
      >>> check_gold(r"\frac{3}{4}")
    """
    judge.readable_gold(gold)


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
    return judge.plain_number(text)
