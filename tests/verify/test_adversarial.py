"""Answers that a policy could cheat with, right answers in odd dress, and whole completions.

Host side. Reads: adversarial.jsonl and completions.jsonl beside this file. Writes: nothing.

Both sets were labelled before the rules that they are about were written. A completion has two
labels: what a strict reader pays, who wants a marked answer, and what a lenient one pays.
"""

import json
import pathlib
import random

import pytest

from jaxrl_reason.verify import answers


def _records(name: str) -> list[dict]:
    return [
        json.loads(line) for line in pathlib.Path(__file__).with_name(name).read_text().splitlines()
    ]


PAIRS = _records("adversarial.jsonl")
COMPLETIONS = _records("completions.jsonl")


def test_the_sets_are_large_and_balanced_and_do_not_contradict_themselves():
    assert len(PAIRS) >= 420 and len({(p["gold"], p["prediction"]) for p in PAIRS}) == len(PAIRS)
    assert sum(not p["label"] for p in PAIRS) >= 0.45 * len(PAIRS)
    assert len({c["completion"] for c in COMPLETIONS}) >= 300
    assert sum(not c["flexible"] for c in COMPLETIONS) >= 0.45 * len(COMPLETIONS)
    assert not [c for c in COMPLETIONS if c["strict"] and not c["flexible"]]


SECONDS = 20.0  # of an answer; the machine may be busy


def _paid(text: str, gold: str, extract: str = "strict") -> bool:
    return answers.verify_answer(text, gold, timeout_s=SECONDS, extract=extract).reward == 1


# Beyond a gold answer that cannot be read: a label that a second look does not share (0.5% for 1/2
# in a box with a percent sign behind it; fonts around two digits with a space between).
UNREADABLE = r"\sum_{"
DISPUTED = {
    ("1/2", r"\boxed{\frac12}\%"),  # the box holds one half, the percent sign stands outside
    ("5", r"\boxed{5 decades}"),  # a unit of time, as weeks are
    ("x+y=7", r"\boxed{7}"),  # may be a line
    ("12", r"\boxed{\mathbf{1}\,\mathbf{2}}"),  # one and two as well
    ("x_1=2, x_2=3", r"\boxed{x_1=3, x_2=2}"),  # wrong where they are two unknowns
}


def test_answers_that_cheat_are_not_paid_and_right_ones_in_odd_dress_are():
    pairs = [p for p in PAIRS if (p["gold"], p["prediction"]) not in DISPUTED]
    pairs = [p for p in pairs if not p["gold"].startswith(UNREADABLE)]
    assert len(PAIRS) - len(pairs) == len(DISPUTED) + 3
    wrong = [p for p in pairs if _paid(p["prediction"], p["gold"]) != p["label"]]
    assert wrong == []


@pytest.mark.parametrize(("extract", "recall"), [("strict", 0.98), ("flexible", 0.97)])
def test_precision_and_recall_of_both_modes(extract, recall):
    paid = [_paid(c["completion"], c["gold"], extract) for c in COMPLETIONS]
    right = [c[extract] for c in COMPLETIONS]
    hits = sum(p and r for p, r in zip(paid, right, strict=True))
    assert hits >= 0.985 * sum(paid) and hits >= recall * sum(right)


def test_hedges_are_refused_in_both_modes():
    for completion in COMPLETIONS:
        if completion["category"] in ("hedges", "truncated"):
            for extract in ("strict", "flexible"):
                assert not _paid(completion["completion"], completion["gold"], extract), completion


WORDS = (
    "5 6 3 2 A B yes no or not and either maybe half halves dozen squared % , . : = + - ( ) $ \\boxed{5} \\boxed{6} "
    "#### <answer> </answer> answer is the The wrong is \\frac12 apples percent of times true false ? \n"
).split(" ")


@pytest.mark.parametrize(
    "number", [100, pytest.param(3000, marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("extract", ["strict", "flexible"])
def test_no_random_text_is_paid_for_two_answers(extract, number):
    draw = random.Random(7)
    golds = ["0", "2", "3", "5", "6", "A", "B", "yes", "no"]
    paid = 0
    for _ in range(number):
        text = " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 7)))
        found = [gold for gold in golds if _paid(text, gold, extract)]
        assert len(found) <= 1, (text, found)
        paid += len(found)
    assert paid > number / 100
