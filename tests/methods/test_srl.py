"""SRL on hand-made groups: rewards, the filter, and which tokens are trained."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason.methods import base, srl
from jaxrl_reason.types import Problem, Verdict
from tests.methods import helpers

# 3 8 5 2, after the expert's first step 1 5 2; the expert goes on with 1 7.
PROBLEM = Problem("s", "3 8 5 2", "1 7", meta={"given": "1 5 2 ;", "separator": ";"})


def make(**changes) -> srl.Srl:
    config = config_lib.recipe("srl")
    values = {"task__think": "false", "task__step_end": "separator"} | changes
    config_lib.override(config, [f"{k.replace('__', '.')}={v}" for k, v in values.items()])
    return srl.Srl(config_lib.validate(config), completion_tokens=24)


def group(*texts: str, truncated: tuple[int, ...] = (), problem: Problem = PROBLEM) -> base.Group:
    completions = [helpers.completion(t, truncated=i in truncated) for i, t in enumerate(texts)]
    verdicts = [Verdict(0.0, None, "wrong") for _ in texts]
    return base.Group(problem, (1, 2), tuple(completions), tuple(verdicts))


def test_rewards_are_similarities_and_minus_one_for_a_wrong_format():
    # "1 7" of "1 7"; "1 9": 2 characters of 3 + 3 match; "8": none; nothing before the separator.
    rewards = make()._rewards(group("1 7 ; 8 ; = 8", "1 9 ; 0 ; = 0", "8 ; = 8", "; = 8"))
    np.testing.assert_allclose(rewards, [1, 2 * 2 / 6, 0, -1], rtol=1e-6)


def test_a_step_that_was_cut_off_is_malformed_and_a_tail_that_was_is_not():
    rewards = make()._rewards(group("1 7", "1 7 ; 8", "1 7", truncated=(0, 1)))
    np.testing.assert_array_equal(rewards, [-1, 1, 1])


def test_thoughts_are_not_scored():
    method = make(task__think="true", task__step_end="eos")
    texts = ["<think>1 7</think> 1 9", "<think>8 8</think>1 7", "1 7", "<think>1 7</think>"]
    completions = [dataclasses.replace(helpers.completion("1 7"), text=t) for t in texts]
    rewards = method._rewards(dataclasses.replace(group("8"), completions=tuple(completions)))
    np.testing.assert_allclose(rewards, [2 / 3, 1, -1, -1], rtol=1e-6)


def test_only_the_first_step_is_trained_where_the_rest_is_not_looked_at():
    built = make().build(
        [group("1 7 ; 8 ; = 8", "1 9 ; 0 ; = 0")],
        helpers.stages(helpers.Script()),
        np.random.default_rng(0),
    )
    assert [np.flatnonzero(row.gate).tolist() for row in built.rows] == [[0, 1, 2]] * 2
    assert built.records[0]["failed"]["gate"] == [1, 1, 1, 0, 0, 0, 0, 0]
    # Rewards 1 and 2/3: z-scores 1 and -1.
    assert [float(row.advantages[0]) for row in built.rows] == pytest.approx([1, -1], rel=1e-4)
    assert built.metrics["reward/similarity"] == pytest.approx(5 / 6)
    assert built.metrics["reward/format_ok_frac"] == 1
    everything = make(task__step_end="eos").build(
        [group("1 7", "1 9")], helpers.stages(helpers.Script()), np.random.default_rng(0)
    )
    assert all(row.gate.all() for row in everything.rows)


def test_the_filter_looks_at_the_population_std(monkeypatch):
    # The first is kept for its one malformed sample (std .563), the second has a std of .0083.
    method, any_group = make(), group("8")
    for rewards, kept in (([0.3, 0.3, 0.3, -1.0], True), ([0.62, 0.60, 0.61, 0.60], False)):
        monkeypatch.setattr(method, "_rewards", lambda _, r=rewards: np.array(r, np.float32))
        assert method.gives_signal(any_group) == kept
    assert np.std([0.3, 0.3, 0.3, -1.0]) == pytest.approx(0.563, abs=1e-3)
    assert np.std([0.62, 0.60, 0.61, 0.60]) == pytest.approx(0.0083, abs=1e-4)


def test_equal_steps_give_no_advantage():
    built = make().build(
        [group("1 7 ; 8", "1 7 ; 9")], helpers.stages(helpers.Script()), np.random.default_rng(0)
    )
    assert all(not row.advantages.any() for row in built.rows)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="srl trains on steps of expert solutions"):
        make(task__steps="false")
    with pytest.raises(ValueError, match="thoughts may hold separators"):
        make(task__think="true")
