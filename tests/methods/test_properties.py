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
BATCH_WIDE = {"reinforce_pp", "reinforce_pp_baseline"}

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
    built = method_of(name, **changes).build(
        groups, helpers.stages(script), np.random.default_rng(0)
    )
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
    if name != "reinforce_pp":  # it compares with other groups
        assert not method_of(name).gives_signal(right[0])
    assert method_of(name).gives_signal(group(name, *FIRST))


@pytest.mark.parametrize("name", METHODS)
def test_no_groups_make_no_rows(name):
    built = method_of(name).build([], helpers.stages(helpers.Script()), np.random.default_rng(0))
    assert built.rows == [] and built.records == []
