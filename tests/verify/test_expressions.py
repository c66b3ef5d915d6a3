"""Expressions over given numbers: values, uses, and text that would be dangerous to anything that evaluates it.

Host side. Reads: nothing. Writes: nothing.
"""

import itertools
import time
from fractions import Fraction

import numpy as np
import pytest

from jaxrl_reason.verify import expressions
from jaxrl_reason.verify.lexer import Unreadable


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(8 - 3) * 5", "correct"),
        ("5 * (8 - 3) = 25", "correct"),
        (r"5 \times (8 - 3)", "correct"),
        (r"$5 \cdot (8-3)$", "correct"),
        ("5(8 - 3)", "correct"),
        ("5 × (8 − 3)", "correct"),
        ("-5 * (3 - 8)", "correct"),
        ("(８ - 3) * 5", "correct"),
        ("(8 - 3) * 5 = 24", "wrong"),  # a false claim
        ("(8 - 3) * 5 = 20 + 5", "correct"),
        ("25", "wrong"),
        ("8 * 3 + 5 / 5", "wrong"),  # 5 twice
        ("8 * 3", "wrong"),  # 5 left over
        ("8 + 3 + 5", "wrong"),
        ("85 - 3", "wrong"),  # digits glued together
        ("5^3 - 8", "unparsable"),
        ("8 ** 3 - 5", "unparsable"),
        ("8!/3/5", "unparsable"),
        (r"\sqrt{5}^{8-3-3}", "unparsable"),
        ("5 * 8 - 3.0e0 * 5", "wrong"),
        ("0.5 * 8 + 3", "unparsable"),
        ("8 / (5 - 5) + 3", "wrong"),
        ("3 / (8 - 8) * 5", "wrong"),
        ("(8 - 3) * 5, 25", "unparsable"),
        ("(8 - 3) * 5 = 25 = 25", "unparsable"),
        ("(8 - 3) * 5 > 24", "unparsable"),
        ("x * 5", "unparsable"),
        ("8 - 3 * 5)", "unparsable"),
        ("50%", "unparsable"),
        ("", "unparsable"),
        ("8 // 3 * 5", "unparsable"),
        ("8 % 3", "unparsable"),
        (r"\binom{8}{3} - 5", "unparsable"),
        ("|3 - 8| * 5", "unparsable"),
    ],
)
def test_reasons(text, reason):
    assert expressions.judge(text, [3, 5, 8], 25, use_all=True) == reason


def test_division_by_zero_has_no_value():
    assert expressions.judge("3 / (8 - 8)", [3, 8, 8], 3, use_all=True) == "unparsable"
    assert expressions.judge("3 + 8 - 8 = 3 / (1 - 1)", [3, 8, 8], 3, use_all=True) == "unparsable"


def test_numbers_may_be_left_over_where_the_task_says_so():
    assert expressions.judge("5 * 5", [5, 5, 8], 25, use_all=False) == "correct"
    assert expressions.judge("5 * 5", [5, 8], 25, use_all=False) == "wrong"


HOSTILE = [
    "9**9**9**9**9**9",
    "9^{9^{9^{9^{9}}}}",
    "9" * 100_000,
    "1e999999999",
    "1" + "0" * 900 + "*" + "1" + "0" * 900,
    "(" * 100_000 + "8" + ")" * 100_000,
    "(" * 900 + "8" + ")" * 900,
    "{" * 1_000_000,
    "-" * 1900 + "8",
    "+".join(["8"] * 900),
    "*".join(["8"] * 500),
    "__import__('os').system('touch /tmp/owned')",
    "().__class__.__bases__[0].__subclasses__()",
    "eval('1')",
    "8-3)*5#",
    "(8-3)*5;import os",
    "(8-3)*5\x00",
    "\ud800(8-3)*5",
    "(8-3)*5\u202e",
    "８" * 2000,
    "\\frac{" * 500,
    "8 if 1 else 3",
    "lambda: 8",
    "[8 for _ in range(10**9)]",
    "8<<999999999",
    "0x8",
    "8_3",
    "8j",
    "1.0000000000000001e-400",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_refused_at_once(text):
    start = time.perf_counter()
    assert expressions.judge(text, [3, 5, 8], 25, use_all=True) != "correct"
    assert expressions.judge(text, [3, 5, 8], 25, use_all=False) != "correct"
    assert time.perf_counter() - start < 1
    assert expressions.judge("(8-3)*5", [3, 5, 8], 25, use_all=True) == "correct"


def test_values_agree_with_another_evaluator():
    # Trees that we build ourselves, evaluated beside their text: the oracle knows no text.
    rng = np.random.default_rng(0)
    for _ in range(200):
        hand = [(Fraction(int(n)), str(n)) for n in rng.integers(1, 100, size=4)]
        while len(hand) > 1:
            (a, x), (b, y) = hand.pop(int(rng.integers(len(hand)))), hand.pop(0)
            sign = "+-*/"[int(rng.integers(4))]
            if sign == "/" and b == 0:
                sign = "+"
            made = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[sign]
            hand.append((made, f"({x} {sign} {y})"))
        value, text = hand[0]
        assert expressions.value(expressions.read(text).tree) == value, text


def test_refusals_are_named():
    with pytest.raises(Unreadable, match="only . - . / and brackets"):
        expressions.read("2^3")
    with pytest.raises(Unreadable, match="over 2000"):
        expressions.read("1+" * 1001)
    for text in itertools.islice(HOSTILE, 10):
        try:
            expressions.read(text)
        except Unreadable:
            continue
