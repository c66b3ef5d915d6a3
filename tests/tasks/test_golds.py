"""Gold answers: numbers that were computed, placeholders, lists, bare solutions.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

from __future__ import annotations

import decimal
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from jaxrl_reason.tasks import golds
from jaxrl_reason.tasks.maths import Maths
from jaxrl_reason.verify import answers

COMPUTED = [
    (0.1 + 0.2, "0.3"), (1 / 3, "1/3"), (1.1 * 3, "3.3"), (0.57 * 100, "57"), (2 / 3, r"\frac{2}{3}"),
    (1 - 0.9, "0.1"), (0.1 * 3, "0.3"), (4.35 * 100, "435"), (1.005 * 1000, "1005"), (22 / 7, "22/7"),
    (-1 / 7, "-1/7"), (1e-7, "0.0000001"), (2.5, "5/2"), (1e16, "10000000000000000"), (1e23, "10^{23}"),
    (0.1 + 0.7, "0.8"), (3 * 0.1 / 3, "0.1"), (19.99 * 3, "59.97"), (math.sqrt(2), r"\sqrt{2}"),
    (math.sqrt(3) / 2, r"\frac{\sqrt{3}}{2}"), (math.pi / 6, r"\frac{\pi}{6}"), (2 * math.pi, r"2\pi"),
    (-math.pi, r"-\pi"), (1000 / 999, "1000/999"), (0.0, "0"), (-0.0, "0"), (123456789.5, "123456789.5"), (5, "5"),
    (355 / 113, "355/113"),
    (decimal.Decimal("3.140"), "3.14"), (decimal.Decimal("1E+3"), "1000"), (decimal.Decimal(7), "7"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), COMPUTED)
def test_a_computed_number_is_the_one_that_was_meant(gold, answer):
    text = golds.text_of("answer", gold, several=False)
    assert answers.verify_answer(f"\\boxed{{{answer}}}", text).reason == "correct", text


@pytest.mark.parametrize(
    ("gold", "answer"), [(0.3, "0.30000001"), (1 / 3, "0.3333"), (0.333, "1/3"), (3.14159, r"\pi")]
)
def test_numbers_that_differ_stay_different(gold, answer):
    text = golds.text_of("answer", gold, several=False)
    assert answers.verify_answer(f"\\boxed{{{answer}}}", text).reason == "wrong", text


def test_what_is_meant_lies_within_a_few_roundings_of_the_float():
    rng = np.random.default_rng(0)
    decimals = [
        round(x, int(k))
        for x, k in zip((rng.normal(size=500) * 100).tolist(), rng.integers(0, 9, 500), strict=True)
    ]
    for x in [*decimals, *rng.normal(size=300).tolist()]:
        text = golds.number_text(x)
        if "\\" not in text:
            assert abs(Fraction(text) - Fraction(x)) <= golds.FLOAT_ULPS * Fraction(math.ulp(x))
    # A decimal of few digits comes back as itself, and as itself after a few operations on it.
    for x in decimals:
        assert Fraction(golds.number_text(x)) == Fraction(repr(x))
        assert Fraction(golds.number_text(x * 3 / 3)) == Fraction(repr(x))
    for top, bottom in rng.integers(1, 300, size=(300, 2)).tolist():
        found = Fraction(golds.number_text(top / bottom))
        assert found == Fraction(top, bottom), (top, bottom)


PLACEHOLDERS = [
    "", "  ", "N/A", "n/a", "None", "null", "NaN", "nan", "unknown", "Unknown.", "not found", "notfound", "Not_Found",
    "see solution", "See the solution.", r"\text{N/A}", r"\boxed{}", r"\boxed{\text{unknown}}", "$None$", "-", "?",
    "proof", "Proof.", "**proof**", r"\text{proof}", "[]", '[""]', "not available", "TBD", "no answer", "<NA>",
]  # fmt: skip


@pytest.mark.parametrize("gold", [*PLACEHOLDERS, None, float("nan"), [], [None], ["N/A"]])
@pytest.mark.parametrize(
    "name", ["answer", "final_answer", "expected_answer", "ground_truth", "label"]
)
def test_placeholders_are_left_out(tmp_path, gold, name):
    path = tmp_path / "a.jsonl"
    rows = [{"problem": "P", "answer": "1"}, {"problem": "Q", name: gold}]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match="1 of 2 problems cannot be used:\n  line 2: ") as said:
        assert len(Maths(path)) == 1
    assert len(said) == 1


def test_boxed_placeholders_of_solutions_are_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"problem": f"P{i}", "solution": f"So \\boxed{{{g}}}"}
        for i, g in enumerate(("1", "proof", "N/A", ""))
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match="3 of 4"):
        assert [p.answer for p in Maths(path).problems] == ["1"]


@pytest.mark.parametrize(
    "gold", ["no solution", "undefined", "5", "A", r"\emptyset", "0", "(A)", "-1", "east"]
)
def test_answers_in_words_are_no_placeholders(gold):
    assert golds.text_of("answer", gold, several=False) == gold


@pytest.mark.parametrize("gold", ["", None, [], "N/A", float("nan")])
def test_another_field_may_have_the_answer(tmp_path, gold):
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps({"problem": "P", "answer": gold, "solution": "3 + 4, so \\boxed{7}"})
    )
    (problem,) = Maths(path).problems
    assert (problem.answer, problem.reference) == ("7", "3 + 4, so \\boxed{7}")


@pytest.mark.parametrize(
    "solution", ["34", "$34$", r"\boxed{34}", "#### 34", "The final answer is 34.", "So it is 34"]
)
def test_an_answer_alone_is_no_solution(tmp_path, solution):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"problem": "P", "answer": "34", "solution": solution}))
    (problem,) = Maths(path).problems
    assert (problem.answer, problem.reference) == ("34", None)


def test_lists_of_golds(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"prompt": "A", "reward_model": {"ground_truth": '["5"]'}},
        {"prompt": "B", "reward_model": {"ground_truth": '["0.5", "\\\\frac{1}{2}"]'}},
        {"prompt": "C", "answer": "[1, 2]"},
        {"prompt": "D", "answer": ["x = 1", "2"], "is_multiple_answer": True},
        {"prompt": "E", "answer": '["1", "2"]'},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match="line 5: several answers, and no word"):
        task = Maths(path)
    assert [p.answer for p in task.problems] == ["5", "0.5", "[1, 2]", "x = 1, 2"]


def test_floats_that_a_table_spells_out():
    for text, gold in (("0.30000000000000004", "0.3"), ("0.3333333333333333", "1/3"), ("56.99999999999999", "57"),
                       ("0.25", "0.25"), ("3.14159265358979", "3.14159265358979"), ("1.50", "1.50")):  # fmt: skip
        assert golds.text_of("answer", text, several=False) == gold
