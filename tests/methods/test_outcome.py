"""Outcome baselines on hand-made groups: the advantage that each recipe gives each completion."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason.methods import outcome
from tests.methods import helpers

RIGHT = "1 5 2 ; 1 7 ; 8 ; = 8"  # 12 tokens, EOS included
WRONG = "1 5 2 ; 1 9 ; 0 ; = 0"  # as many
SHORT = "= 0"  # wrong in 3 tokens


def advantages(name: str, *groups, **changes) -> list[float]:
    """One advantage per row; all tokens of a row have the same."""
    config = config_lib.recipe(name)
    config_lib.override(config, [f"{k.replace('__', '.')}={v}" for k, v in changes.items()])
    method = outcome.Outcome(config, completion_tokens=24)
    built = method.build(groups, helpers.stages(helpers.Script()), np.random.default_rng(0))
    assert all(np.ptp(row.advantages) == 0 for row in built.rows)
    assert all(row.gate.all() or not row.gate.any() for row in built.rows)
    return [float(row.advantages[0]) for row in built.rows]


def test_rloo_is_the_reward_minus_the_mean_of_the_others():
    # 1 - (0 + 0) / 2 and 0 - (1 + 0) / 2.
    got = advantages("rloo", helpers.group(RIGHT, WRONG, SHORT))
    assert got == pytest.approx([1, -0.5, -0.5])
    config = config_lib.recipe("rloo")
    assert (config.loss.ratio, config.loss.aggregation) == ("token", "seq_sum_over_const")


def test_reinforce_pp_whitens_the_rewards_of_the_whole_batch_by_tokens():
    # Tokens 12 + 12 of reward 1, 12 + 3 of reward 0: mean 24/39, variance (24/39)(15/39).
    groups = helpers.group(RIGHT, WRONG), helpers.group(RIGHT, SHORT)
    mean = 24 / 39
    std = np.sqrt(mean * (1 - mean))
    want = [(1 - mean) / std, -mean / std, (1 - mean) / std, -mean / std]
    assert advantages("reinforce_pp", *groups) == pytest.approx(want, rel=1e-4)
    # Affine in the reward: -1/+1, which the paper recommends, gives the same.
    by_rows = advantages("reinforce_pp", *groups, advantage__whiten="rows")
    assert by_rows == pytest.approx([1, -1, 1, -1], rel=1e-4)


def test_reinforce_pp_with_baseline_subtracts_the_group_mean_first():
    # Centred: 1/2, -1/2 | 2/3, -1/3, -1/3. By rows mean 0, variance (1/2 + 6/9) / 5.
    groups = helpers.group(RIGHT, WRONG), helpers.group(RIGHT, WRONG, SHORT)
    std = np.sqrt((1 / 2 + 6 / 9) / 5)
    want = np.array([1 / 2, -1 / 2, 2 / 3, -1 / 3, -1 / 3]) / std
    got = advantages("reinforce_pp_baseline", *groups, advantage__whiten="rows")
    assert got == pytest.approx(want.tolist(), rel=1e-4)
    # By tokens: sum 12/2 - 12/2 + 8 - 4 - 1 = 3 over 51 tokens.
    centred, tokens = (
        np.array([1 / 2, -1 / 2, 2 / 3, -1 / 3, -1 / 3]),
        np.array([12, 12, 12, 12, 3]),
    )
    above = centred - 3 / 51
    want = above / np.sqrt((tokens * above**2).sum() / 51)
    assert advantages("reinforce_pp_baseline", *groups) == pytest.approx(want.tolist(), rel=1e-4)


def test_truncated_completions_enter_no_mean_where_they_get_no_loss():
    group = helpers.group(RIGHT, WRONG, SHORT)
    completions = (*group.completions[:2], helpers.completion(SHORT, truncated=True))
    group = type(group)(group.problem, group.prompt, completions, group.verdicts)
    got = advantages("reinforce_pp", group, overlong__filter="true")
    assert got == pytest.approx([1, -1, 0], rel=1e-4)


def test_plain_reinforce_pp_learns_from_groups_of_equal_rewards():
    groups = {"equal": helpers.group(WRONG, SHORT), "mixed": helpers.group(RIGHT, WRONG)}
    wanted = {
        "reinforce_pp": [True, True],
        "reinforce_pp_baseline": [False, True],
        "rloo": [False, True],
    }
    for name, signals in wanted.items():
        method = outcome.Outcome(config_lib.recipe(name), completion_tokens=24)
        assert [method.gives_signal(g) for g in groups.values()] == signals
