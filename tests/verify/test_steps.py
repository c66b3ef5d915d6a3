"""Executable step check, and the scores of a locator.

Host side. Reads: nothing. Writes: a temporary folder.
"""

import json
import time

import pytest

from jaxrl_reason.verify import processbench, steps


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs a day.", "right"),
        ("Janet sells 16 - 3 - 4 = <<16-3-4=8>>8 duck eggs a day.", "wrong"),
        ("She makes 9 * 2 = $<<9*2=18>>18 every day.", "right"),
        ("He gets 2+3=6 then", "wrong"),
        ("3 + 4 = 7 = 8", "wrong"),
        ("3 + 4 = 7 = 7.0", "right"),
        ("10 / 3 = 3.33 = 3", "right"),  # a whole number may be meant
        ("3 + 4 = 7 boxes = 14 pairs", "right"),  # another unit
        ("3 * 4 = 12, x = 5 = 6", "right"),  # no chain
        ("2**10 = 1024", "right"),
        ("2**10 = 1025", "wrong"),
        ("**2 + 3** = 5", "right"),  # bold
        ("7 plus 8 equals 15", "right"),
        ("7 plus 8 equals 16", "wrong"),
        ("half equals 16", "unknown"),
        ("the value went up by 80,000*1.5=<<80000*1.5=120000>>120,000", "right"),
        (r"\(1/3 \times 18 = 6\) flamingos", "right"),
        (r"\(1/3 \times 18 = 9\) flamingos", "wrong"),
        (r"\[ \frac{20}{4} + 1 = 6 \]", "right"),
        (r"$12 \div 5 = 3.4$", "wrong"),
        ("12 / 7 = 1.71", "right"),  # rounded
        ("12 / 7 = 1.714 = 1.7", "right"),
        ("2/3 = .66", "right"),  # cut
        ("10 / 3 = 3 buses", "unknown"),  # whole buses
        ("5/20 * 100 = 25%", "right"),
        ("5/20 = 25%", "right"),
        ("20% of 50 = 10", "right"),
        ("20% of 50 = 15", "wrong"),
        ("3/3 - 2/3 = 1/3 of 150", "unknown"),  # a third, of what is another matter
        ("3 apples * 4 = 12 apples", "right"),
        ("3 apples * 4 = 13 apples", "wrong"),
        ("2 hours * 60 minutes/hour = 120 minutes", "right"),
        ("3 * 60 minutes = 3 hours", "unknown"),  # a change of unit
        ("2x + 3 = 7", "unknown"),
        ("3N + 9 = 411", "unknown"),
        ("x = 4 - y", "unknown"),
        ("Total in 8 boxes = 8 * 20", "unknown"),
        ("5 + 5 = 10 = 2 * 5", "right"),
        ("5 + 5 = 10 = 2 * 6", "wrong"),
        ("6:00 + 18 hours = 00:00", "unknown"),
        ("25 / 1/3 = 75", "right"),
        ("12 x 1 and 1/4 = 15", "right"),
        ("5 times * 8 meters = 40 meters", "right"),
        ("4 + 4 >= 9", "unknown"),
        ("9^9^9^9 = 5", "unknown"),
        ("1/0 = 5", "unknown"),
        ("no figures here", "unknown"),
        ("", "unknown"),
    ],
)
def test_check_step(text, outcome):
    assert steps.check_step(text) == outcome


def test_first_wrong_step():
    solution = ["We know 3 * 4 = 12.", "Then 12 + 5 = 18.", "So 18 / 2 = 8."]
    assert steps.first_wrong_step(solution) == 1
    assert steps.first_wrong_step(solution[:1]) == -1
    assert steps.first_wrong_step([]) == -1


@pytest.mark.parametrize(
    "text",
    [
        "1+" * 4_000 + "1 = 5",
        "=" * 20_000,
        "((((" * 2_000 + "=",
        "1 = " * 2_000,
        "9**9**9**9**9 = 1",
        "<<" * 10_000,
        "\\frac{" * 1_500 + "=",
        "1,000" * 1_500 + " = 1",
        "\x00 = \ud800",
    ],
)
def test_hostile_steps_end_in_time(text):
    start = time.thread_time()
    assert steps.check_step(text) in ("right", "wrong", "unknown")
    assert time.thread_time() - start < 5


def test_scores_by_hand():
    # Five erroneous: one match, one earlier, two later, one missed. Three correct, two of them said.
    labels = [2, 3, 1, 0, 4, -1, -1, -1]
    found = processbench.score(labels, [2, 1, 2, 5, -1, -1, -2, 0])
    assert found[1:7] == (0.2, 2 / 3, 0.2, 0.2, 0.4, 0.2)
    assert found.f1 == pytest.approx(2 * 0.2 * (2 / 3) / (0.2 + 2 / 3))
    assert (found.num_erroneous, found.num_correct) == (5, 3)
    assert processbench.score([], []).f1 == 0.0
    with pytest.raises(ValueError, match="2 labels and 1 predictions"):
        processbench.score([1, 2], [1])
    with pytest.raises(ValueError, match="label -2"):
        processbench.score([-2], [1])


def test_records_are_read_and_bad_ones_named(tmp_path):
    path = tmp_path / "subset.json"
    good = {"id": "a", "problem": "p", "steps": ["1 + 1 = 3", "so"], "label": 0}
    path.write_text(json.dumps([good]))
    (record,) = processbench.read(path)
    assert steps.first_wrong_step(record.steps) == record.label
    for change, message in [
        ({"label": 2}, "label 2: must be a step of 2"),
        ({"steps": "x"}, "steps"),
    ]:
        path.write_text(json.dumps([good, good | change]))
        with pytest.raises(ValueError, match=f"item 2: .*{message}"):
            processbench.read(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="must hold records"):
        processbench.read(path)
