"""The final answer and what it is compared by: places, plain numbers, hostile text, threads.

Host side. Reads: nothing. Writes: nothing.
"""

import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from jaxrl_reason.verify import answers


@pytest.mark.parametrize(
    ("completion", "gold", "reason", "answer"),
    [
        (r"\boxed{5}", "5", "correct", "5"),
        (r"\boxed{3}. Wait, no: \boxed{5}", "5", "correct", "5"),
        (r"\boxed{5}. Wait, no: \boxed{3}", "5", "wrong", "3"),
        (r"\boxed{ 1{,}5 }", "15", "unparsable", None),
        (r"\boxed{\frac{1}{2}}", "0.5", "correct", "1/2"),
        (r"\boxed{-\dfrac{2}{4}}", "-1/2", "correct", "-1/2"),
        (r"\boxed{\boxed{5}}", "5", "correct", "5"),
        (r"\boxed{5} #### 7", "7", "correct", "7"),  # the last statement counts
        (r"\boxed{5} then \boxed{7", "5", "unparsable", None),  # the last box never closes
        (r"\boxed{}", "5", "unparsable", None),
        (r"\boxed{4=5}", "5", "wrong", "4=5"),
        (r"\boxed{6-1}", "5", "wrong", "5"),
        (r"\boxed{5!}", "120", "wrong", "120"),
        (r"\boxed{50\%}", "50", "wrong", "1/2"),
        (r"\boxed{5 \text{ cm}}", "5", "correct", "1/20 metre^1"),
        (r"\boxed{12_5}", "12", "wrong", "12_5"),
        (r"\boxed{$5$}", "5", "correct", "5"),
        ("#### 1,234", "1234", "correct", "1234"),
        ("#### $1,234.50", "1234.5", "correct", "2469/2"),
        ("#### -7", "7", "wrong", "-7"),
        ("#### 3 #### 4", "4", "correct", "4"),
        ("#### 4\nso it is 4", "4", "correct", "4"),  # the line counts
        ("#### 4\n\n", "4", "correct", "4"),
        ("#### 4.", "4", "correct", "4"),
        ("####", "4", "unparsable", None),
        ("the answer is 9, no. The Answer is: 8.", "8", "correct", "8"),
        ("the answer is #### 8", "8", "correct", "8"),
        ("The answer is $12$.", "12", "correct", "12"),
        ("the answer is eight", "8", "correct", "8"),
        ("the answer is several", "8", "unparsable", None),
        ("I tried 5, 6, 7", "7", "unparsable", None),  # a stray number is no answer
        ("", "7", "unparsable", None),
        ("#### 1/3", "2/6", "correct", "1/3"),
        ("#### 0.333333", "1/3", "wrong", "333333/1000000"),  # exact
        ("#### 3/0", "3", "unparsable", None),
        ("#### ５", "5", "correct", "5"),  # full-width digit
        ("#### 1e3", "1000", "correct", "1000"),
        ("#### 0x10", "16", "unparsable", None),
        ("#### nan", "5", "wrong", "nan"),
        ("#### 1_000", "1000", "unparsable", None),
        ("#### __import__('os').getpid()", "5", "unparsable", None),
    ],
)
def test_verdicts(completion, gold, reason, answer):
    verdict = answers.verify_answer(completion, gold)
    assert (verdict.reason, verdict.answer) == (reason, answer)
    assert verdict.reward == (reason == "correct")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("007", 7),
        ("+3", 3),
        ("-0", 0),
        (".5", Fraction(1, 2)),
        ("-$5", -5),
        (r"\$5", 5),
        ("1,000,000.25", Fraction(4_000_001, 4)),
        ("10/4", Fraction(5, 2)),
        ("9" * 1000, 10**1000 - 1),
        ("9" * 1001, None),
        ("1/" + "9" * 999, Fraction(1, 10**999 - 1)),
        ("1/" + "9" * 1000, None),
        ("12,34", None),
        ("1,0000", None),
        ("1234,567", None),
        ("5.", None),
        ("--5", None),
        ("1/-2", None),
        ("1 / 2", None),
        ("1.5/2", None),
        ("$", None),
        ("$$", None),
        ("", None),
        ("5 5", None),
    ],
)
def test_parse_number(text, value):
    assert answers.parse_number(text) == value


def test_random_numbers_round_trip_in_every_spelling():
    rng = np.random.default_rng(0)
    for _ in range(300):
        whole, cents = int(rng.integers(-(10**9), 10**9)), int(rng.integers(100))
        sign = -1 if whole < 0 else 1
        value = whole + sign * Fraction(cents, 100)
        plain = f"{whole}.{cents:02d}"
        spellings = [plain, f"{whole:,}.{cents:02d}", f"{whole * 100 + sign * cents}/100"]
        spellings.append(str(value) if "/" in str(value) else f"{value}.0")
        for text in spellings:
            verdict = answers.verify_answer(f"so\n#### {text}", plain)
            assert verdict.reason == "correct" and verdict.answer == str(value), text
            assert answers.verify_answer(rf"\boxed{{{text}}}", str(value + 1)).reason == "wrong"


HOSTILE = {
    "open braces": r"\boxed{" + "{" * 999_000,
    "brace pairs": r"\boxed{" + "{}" * 499_000 + "}",
    "boxes": r"\boxed{" * 140_000,
    "digits": "#### " + "9" * 100_000,
    "boxed digits": r"\boxed{" + "9" * 100_000 + "}",
    "fraction": "#### 1/" + "9" * 100_000,
    "separators": "#### 1" + ",000" * 100_000,
    "markers": "####" * 249_000,
    "phrases": "answer is " * 99_000,
    "white space": "#### 5" + " " * 900_000 + "x",
    "power tower": "#### 9^{9^{9^{9}}}",
    "too long": "#### 5".rjust(answers.MAX_CHARS + 1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_at_once(name):
    start = time.thread_time()  # other processes may hold the machine
    verdict = answers.verify_answer(HOSTILE[name], "5", timeout_s=0.5)
    assert time.thread_time() - start < 0.5
    assert verdict.reason != "correct"


def test_the_longest_allowed_text_is_read():
    assert answers.verify_answer("#### 5".rjust(answers.MAX_CHARS), "5").reason == "correct"


def test_works_in_other_threads():
    verdicts = []
    threads = [
        threading.Thread(target=lambda: verdicts.append(answers.verify_answer("#### 5", "5")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [v.reason for v in verdicts] == ["correct"] * 4


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="gold answer '5 = = 5': cannot be read"):
        answers.verify_answer("#### 5", "5 = = 5")
    with pytest.raises(ValueError, match="timeout_s = 0.0: must be > 0"):
        answers.verify_answer("#### 5", "5", timeout_s=0.0)
