"""What holds for every method: order, company and padding change nothing, and equal outcomes teach nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import config_rules
from jaxrl_reason.methods import base, make_method
from jaxrl_reason.types import Problem
from tests.methods import helpers

METHODS = sorted(config_rules.RECIPES)
# Their advantages are normalised over the batch: other groups change them.
BATCH_WIDE = {"reinforce_pp", "reinforce_pp_baseline", "ppo"}
# They compare a completion with more than its group.
NOT_BY_GROUP = {"reinforce_pp", "ppo"}
TRAINS_COMPANION = {"prime", "ppo"}

# 3 8 5 2 and 1 2 3 4 modulo 10, in words that are right, wrong early and wrong late.
FIRST = ("1 5 2 ; 1 7 ; 8 ; = 8", "1 5 2 ; 1 9 ; 0 ; = 0", "1 5 2 ; 1 7 ; 8 ; = 9", "3 3 2 ; = 1")
SECOND = ("3 3 4 ; 6 4 ; 0 ; = 0", "3 3 4 ; 6 5 ; 1 ; = 1", "9 3 4 ; 2 4 ; 6 ; = 6")
OTHER = Problem(id="q", prompt="1 2 3 4", answer="0")


def method_of(name: str, *, completion_tokens: int = 24) -> base.Method:
    config = config_lib.recipe(name)
    settings = ["iop.audit=replay", "vppo.shorten=none", "cliff.prefix_scale=0.5"]
    if name == "srl":
        settings += ["task.think=false", "task.step_end=separator"]
    config = config_lib.validate(config_lib.override(config, settings))
    return make_method(config, completion_tokens=completion_tokens)


def group(name: str, *texts: str, problem: Problem = helpers.PROBLEM) -> base.Group:
    made = helpers.group(*texts, problem=problem)
    if name != "srl":
        return made
    asked = dataclasses.replace(problem, answer=texts[0].split(" ;")[0], meta={"separator": ";"})
    return dataclasses.replace(made, problem=asked)


def build(name: str, *groups: base.Group, **changes) -> dict:
    """{(prompt, completion, stream): (gate, advantages, weight)} of the rows."""
    script = helpers.Script(repair=[[FIRST[0], FIRST[2]]])
    companion = helpers.Companion() if name in TRAINS_COMPANION else None
    built = method_of(name, **changes).build(
        groups, helpers.stages(script, companion), np.random.default_rng(0)
    )
    assert built.companion == (companion and companion.state)
    assert not companion or len(companion.trained) == len(built.rows)
    assert all(np.isfinite(v) for v in built.metrics.values())
    rows = {}
    for row in built.rows:
        rows.setdefault((row.prompt, row.completion, row.stream), []).append(
            (row.gate, row.advantages, row.weight)
        )
    return rows


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for key in a:
        for mine, other in zip(a[key], b[key], strict=True):
            np.testing.assert_array_equal(mine[0], other[0])
            np.testing.assert_allclose(mine[1], other[1], rtol=1e-5, atol=1e-6)
            assert mine[2] == other[2]


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_completions_and_groups_does_not_matter(name):
    first, second = group(name, *FIRST), group(name, *SECOND, problem=OTHER)
    want = build(name, first, second)
    assert want
    assert_same(build(name, second, first), want)
    order = [2, 0, 3, 1]
    shuffled = dataclasses.replace(
        first,
        completions=tuple(first.completions[i] for i in order),
        verdicts=tuple(first.verdicts[i] for i in order),
    )
    assert_same(build(name, shuffled, second), want)


@pytest.mark.parametrize("name", METHODS)
def test_groups_are_independent_unless_the_batch_is_normalised(name):
    first, second = group(name, *FIRST), group(name, *SECOND, problem=OTHER)
    alone, together = build(name, first), build(name, first, second)
    own = {key: rows for key, rows in together.items() if key in alone}
    if name not in BATCH_WIDE:
        return assert_same(own, alone)
    with pytest.raises(AssertionError):
        assert_same(own, alone)


@pytest.mark.parametrize("name", METHODS)
def test_padding_does_not_matter(name):
    groups = group(name, *FIRST), group(name, *SECOND, problem=OTHER)
    assert_same(build(name, *groups, completion_tokens=40), build(name, *groups))


@pytest.mark.parametrize("name", METHODS)
def test_groups_that_are_all_right_have_zero_advantage(name):
    right = group(name, FIRST[0], FIRST[0]), group(name, SECOND[0], SECOND[0], problem=OTHER)
    for rows in build(name, *right).values():
        for _, advantages, _ in rows:
            np.testing.assert_array_equal(advantages, 0)
    if name not in NOT_BY_GROUP:
        assert not method_of(name).gives_signal(right[0])
    assert method_of(name).gives_signal(group(name, *FIRST))


@pytest.mark.parametrize("name", METHODS)
def test_no_groups_make_no_rows(name):
    companion = helpers.Companion() if name in TRAINS_COMPANION else None
    stages = helpers.stages(helpers.Script(), companion)
    built = method_of(name).build([], stages, np.random.default_rng(0))
    assert built.rows == [] and built.records == []
    assert built.companion == (companion and companion.state), "what was learned is not lost"


def advantages_of(name: str, *groups: base.Group, **changes) -> np.ndarray:
    """[rows, tokens] advantages; all completions of the groups have the same length."""
    config = config_lib.recipe(name)
    settings = ["vppo.shorten=none", *(f"{k.replace('__', '.')}={v}" for k, v in changes.items())]
    method = make_method(config_lib.override(config, settings), completion_tokens=24)
    stages = helpers.stages(helpers.Script(), helpers.Companion())
    return np.stack(
        [row.advantages for row in method.build(groups, stages, np.random.default_rng(0)).rows]
    )


@pytest.mark.parametrize(
    ("process", "outcome", "changes"),
    [
        # A step reward that is the same everywhere adds a constant, which the comparison takes away.
        ("mixed", "grpo", {"mixed__process_share": 0.0}),
        ("prime", "rloo", {}),  # reward model = reference: no step is worth anything
        ("vppo", "dr_grpo", {"vppo__alpha": 0.0}),
        # Values are the same everywhere, and the discount is 1: every token has the return of the whole.
        ("ppo", "reinforce_pp", {}),
    ],
)
def test_without_differences_between_steps_a_process_method_is_its_outcome_twin(
    process, outcome, changes
):
    groups = helpers.group(*FIRST[:3]), helpers.group(*SECOND, problem=OTHER)
    mine, twin = advantages_of(process, *groups, **changes), advantages_of(outcome, *groups)
    np.testing.assert_allclose(mine, twin, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["vppo", "cliff", "grpo_process", "mixed", "rts"])
def test_where_the_wrong_step_stands_changes_the_advantages(name):
    # The wrong step is the second, then the fourth of four; outcomes are the same.
    early, late = helpers.group(FIRST[0], FIRST[1]), helpers.group(FIRST[0], FIRST[2])
    changes = {"cliff__prefix_scale": 0.5, "rts__slope": 2.0}
    one, two = (advantages_of(name, g, advantage__eps=1.0, **changes) for g in (early, late))
    assert np.abs(one - two).max() > 0.01


@pytest.mark.parametrize("name", METHODS)
def test_weights_for_a_sampler_that_is_not_the_trainer(name):
    groups = group(name, *FIRST), group(name, *SECOND, problem=OTHER)
    if name == "iop":
        return  # refused: `test_config`
    plain, rows = build(name, *groups), {}
    # Every trainer log-prob is -0.25 and the sampler's -0.5: all ratios are e^0.25,.
    for settings in ("tis", "icepop"):
        method = method_of(name)
        with method.config.unlocked():
            method.config.loss.mismatch, method.config.loss.mismatch_high = settings, 1.2
        companion = helpers.Companion() if name in TRAINS_COMPANION else None
        stages = helpers.stages(helpers.Script(), companion)
        built = method.build(groups, stages, np.random.default_rng(0))
        assert built.metrics["mismatch/ratio_max"] == pytest.approx(np.exp(0.25)), "raw"
        assert built.metrics["mismatch/cut_frac"] == 1
        rows[settings] = {}
        for row in built.rows:
            key = (row.prompt, row.completion, row.stream)
            rows[settings].setdefault(key, []).append((row.gate, row.advantages, row.weight))
    scaled = {"tis": 1.2, "icepop": 0.0}
    for settings, factor in scaled.items():
        want = {k: [(g, factor * a, w) for g, a, w in v] for k, v in plain.items()}
        assert_same(rows[settings], want)
