"""Labels of steps from files, from first errors, hard and soft."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxrl_reason.verify import step_labels


def write(path, *records) -> str:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n")
    return str(path)


def test_trl_labels_are_bools_shares_or_missing(tmp_path):
    record = {"prompt": "q", "completions": ["a", "b", "c"], "labels": [True, 0.25, None]}
    path = write(tmp_path / "a.jsonl", record, "", record | {"labels": [False, 1, 0]})
    first, second = step_labels.read_trl(path)
    assert first == step_labels.Labelled("q", ("a", "b", "c"), (1.0, 0.25, None))
    assert second.labels == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"prompt": "q", "completions": ["a"]}, "labels"),
        ({"prompt": "q", "completions": ["a"], "labels": [1, 1]}, "one length"),
        ({"prompt": "q", "completions": ["a"], "labels": [-100]}, "-100"),
        ({"prompt": "q", "completions": ["a"], "labels": ["true"]}, "'true'"),
        ('{"prompt": "q", "completions": ["a"], "labels": [NaN]}', "nan"),
        ({"prompt": "q", "completions": [], "labels": []}, "no steps"),
        ({"prompt": "q", "completions": [3], "labels": [1]}, "strings"),
        ({"prompt": ["q"], "completions": ["a"], "labels": [1]}, "strings"),
        ({"prompt": "q", "completions": "a", "labels": "1"}, "lists"),
    ],
)
def test_a_bad_record_is_left_out_and_named(tmp_path, record, words):
    good = {"prompt": "q", "completions": ["a"], "labels": [1]}
    said = rf"a\.jsonl: 1 of 2 records cannot be used:\n  line 2: no labelled solution: .*{words}"
    with pytest.warns(UserWarning, match=said):
        assert len(step_labels.read_trl(write(tmp_path / "a.jsonl", good, record))) == 1
    with pytest.raises(ValueError, match="1 of 1 records"):
        step_labels.read_trl(write(tmp_path / "a.jsonl", record))


@pytest.mark.parametrize("line", ["{", [1]])
def test_a_line_that_is_no_record_is_an_error(tmp_path, line):
    good = {"prompt": "q", "completions": ["a"], "labels": [1]}
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: "):
        step_labels.read_trl(write(tmp_path / "a.jsonl", good, line))


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no record"):
        step_labels.read_trl(write(tmp_path / "a.jsonl"))


def step(*candidates, chosen=None, human=None):
    texts = [{"text": text, "rating": rating, "flagged": None} for text, rating in candidates]
    human = None if human is None else {"text": human, "rating": None}
    return {"completions": texts, "human_completion": human, "chosen_completion": chosen}


def prm800k(tmp_path, *steps):
    record = {"question": {"problem": "q"}, "label": {"steps": list(steps), "finish_reason": ""}}
    return [
        (found.steps, found.labels)
        for found in step_labels.read_prm800k(write(tmp_path / "p.jsonl", record))
    ]


def test_prm800k_candidates_end_solutions_behind_the_chosen_steps(tmp_path):
    found = prm800k(
        tmp_path,
        step(("a", 1), ("x", -1), chosen=0),
        step(("b", -1), human="h"),
        step(("c", 0), ("y", None), chosen=0),
    )
    assert found == [
        (("a", "x")[1:], (0.0,)),
        (("a", "b"), (1.0, 0.0)),
        (("a", "h", "y"), (1.0, 1.0, None)),
        (("a", "h", "c"), (1.0, 1.0, 1.0)),  # 0: right, without progress
    ]
    # It ends where an error was found and nobody went on.
    assert prm800k(tmp_path, step(("a", 1), chosen=0), step(("b", -1))) == [
        (("a", "b"), (1.0, 0.0))
    ]
    # A step without anything ends the solution before it.
    empty = {"completions": None, "human_completion": None, "chosen_completion": None}
    assert prm800k(tmp_path, step(("a", 1), chosen=0), empty) == [(("a",), (1.0,))]
    with pytest.raises(ValueError, match="rating 2"):
        prm800k(tmp_path, step(("a", 2), chosen=0))


@pytest.mark.parametrize(
    ("hard_above", "drop", "values", "known"),
    [
        (None, False, [1, 0.5, 0, 0, 0, 0.25], [1, 1, 0, 1, 1, 1]),
        (None, True, [1, 0.5, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0]),
        (0.0, False, [1, 1, 0, 0, 0, 1], [1, 1, 0, 1, 1, 1]),
        (0.5, True, [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]),  # above, not at
    ],
)
def test_targets(hard_above, drop, values, known):
    labels = [1.0, 0.5, None, 0.0, 0.0, 0.25]
    found = step_labels.targets(labels, hard_above=hard_above, drop_after_error=drop)
    assert found[0].tolist() == values and found[1].tolist() == [bool(x) for x in known]
    assert found[0].dtype == np.float32
    nothing = step_labels.targets([], hard_above=hard_above, drop_after_error=drop)
    assert nothing[0].shape == nothing[1].shape == (0,)


def test_a_first_error_labels_all_steps():
    labels = [
        step_labels.from_first_error("q", "abc", [0, 1, 2], error).labels
        for error in (-1, 0, 2, 3)  # 3: a step is missing at the end
    ]
    assert labels == [(1, 1, 1), (0, 0, 0), (1, 1, 0), (1, 1, 1)]
