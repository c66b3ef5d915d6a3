"""Generated hostile texts: no entry that reads text takes long, or longer than in proportion to the text.

Host side. Reads: nothing. Writes: a temporary folder.
"""

import json
import pathlib
import subprocess
import sys
import time

import pytest

from jaxrl_reason.verify import answers, similarity

BENCHMARK = pathlib.Path(__file__).parents[2] / "benchmarks" / "hostile.py"

# Texts by which a verifier with nested repeats hangs: (text, gold).
KNOWN = {
    "unit and spaces": (r"\boxed{12 apples" + " " * 300 + "(approx.)}", "12"),
    "unit, spaces, digit": (r"\boxed{5 cm" + " " * 60 + "1}", "5"),
    "unit and slashes": (r"\boxed{5 a" + "  /" * 20 + "?}", "5"),
    "short units and spaces": (r"\boxed{5 a" + " " * 70 + "?}", "5 cm"),
    "letters, two spaces apart": (r"\boxed{" + "A  " * 18 + "?}", "A, C"),
    "letters and commas": (r"\boxed{" + "A , " * 14 + "?}", "A, C"),
    "labels": (r"\boxed{" + "A: " * 600 + "5}", "5"),
    "words": (r"\boxed{" + "a, " * 600 + "1}", "yes"),
    "digits and spaces": (r"\boxed{" + "123 " * 490 + "/}", "5"),
    "large root": (r"\boxed{(1/4000!)^{1/3}}", "5"),
    "chain": (r"\boxed{x=" + "=".join([r"\sin(\sqrt{2})"] * 100) + "}", r"\sin(\sqrt{2})"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_texts_take_no_time(name):
    text, gold = KNOWN[name]
    start = time.thread_time()
    answers.verify_answer(text, gold, timeout_s=0.2)
    assert time.thread_time() - start < 0.5


def test_hostile_gold_answers_take_no_time():
    for text, _ in KNOWN.values():
        start = time.thread_time()
        try:
            answers.check_gold(text)
        except ValueError as error:
            assert "gold answer" in str(error)
        assert time.thread_time() - start < 0.5


def test_similarity_is_bounded():
    for size in (1000, 100_000):
        for step, expert in (("ab" * size, "a" * size), ("abc" * size, "acb" * size)):
            start = time.thread_time()
            assert 0 < similarity.similarity(step, expert) < 1
            assert time.thread_time() - start < 2.0  # also where difflib does the work
        assert similarity.similarity("ab" * size, "ab" * size) == 1.0


@pytest.mark.parametrize("share", [0.0004, pytest.param(0.01, marks=pytest.mark.slow)])
def test_no_entry_takes_long(share, tmp_path):
    # As a program of its own, whose types nobody checks.
    out = tmp_path / "hostile.json"
    subprocess.run(
        [sys.executable, BENCHMARK, "--share", str(share), "--out", out],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for name, row in json.loads(out.read_text()).items():
        assert row["inputs"] > 0, name
        assert row["over"] == [] and row["seconds"] < 0.5, (name, row)
        # A similarity compares every pair of characters up to its limit of 4,000, beyond which it grows no more.
        assert row["exponent"] < (2.2 if "similarity" in name else 1.5), (name, row)
