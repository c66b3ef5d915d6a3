"""Similarity of steps: values by hand, the same numbers as difflib, and which formats count as a step."""

from __future__ import annotations

import difflib
import random

import pytest

from jaxrl_reason.verify import similarity


def test_by_hand():
    # "bcd" matches: 2 x 3 / 8. "tide" in "diet": "t" at its end alone or "d" first: one of 4 + 4, or two.
    assert similarity.similarity("abcd", "bcde") == 0.75
    assert similarity.similarity("tide", "diet") == 0.25
    assert similarity.similarity("diet", "tide") == 0.5
    assert similarity.similarity("", "") == 1
    assert similarity.similarity("", "8") == 0


def test_autojunk_is_off_unless_asked_for():
    rng = random.Random(0)
    expert = "".join(rng.choice("abcdefgh ") for _ in range(400))
    near = "".join(rng.choice("xyz") if i % 25 == 0 else c for i, c in enumerate(expert))
    off = similarity.similarity(near, expert)
    assert off == pytest.approx(0.96, abs=0.01)
    assert similarity.similarity(near, expert, autojunk=True) < off


def test_same_numbers_as_difflib():
    rng = random.Random(1)
    for size in (3, 12, 40, 250):
        for _ in range(20):
            a, b = ("".join(rng.choice("abcd ;") for _ in range(rng.randrange(size))) for _ in "ab")
            for autojunk in (False, True):
                want = difflib.SequenceMatcher(None, a, b, autojunk).ratio()
                assert similarity.similarity(a, b, autojunk=autojunk) == want


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("<think>carry 1</think> 8 + 5 = 13 ", "8 + 5 = 13"),
        ("\n<think></think><solution> 13 </solution>", "13"),
        ("<think>a</think>", None),  # no step
        ("<think>a</think>  ", None),
        ("<think>a", None),  # never closed
        ("13", None),  # no thoughts
        ("so <think>a</think> 13", None),  # does not start with them
        ("<think>a</think> 13 <think>b</think>", None),  # thinks again
        ("</think>13<think>", None),
    ],
)
def test_think_then_one_step(text, step):
    assert similarity.written_step(text, think=True, separator=None) == step


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("1 7 ; 8 ; = 8", "1 7"),
        ("1 7", "1 7"),
        (" ; 8", None),
        ("", None),
        ("<think>a</think> 1 7 ;", None),
    ],
)
def test_a_step_without_thoughts_ends_at_the_separator(text, step):
    assert similarity.written_step(text, think=False, separator=";") == step
