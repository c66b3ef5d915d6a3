"""VPPO, Cliff and process-supervised GRPO on hand-made groups: who is located, which tokens get which advantage."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason.methods import make_method
from tests.methods import helpers

# 3 8 5 2 modulo 10. All have 12 tokens, EOS included; steps start at tokens 0, 4, 7, 9.
RIGHT = "1 5 2 ; 1 7 ; 8 ; = 8"
EARLY = "1 5 2 ; 1 9 ; 0 ; = 0"  # step 1 is wrong: 4 good tokens
LATE = "1 5 2 ; 1 7 ; 8 ; = 9"  # step 3 is wrong: 9 good tokens
PROMPT_TOKENS = 7  # BOS solve 3 8 5 2 :


def build(name: str, *groups, script=None, oracle=True, **changes):
    config = config_lib.recipe(name)
    config_lib.override(config, [f"{k.replace('__', '.')}={v}" for k, v in changes.items()])
    stages = helpers.stages(script or helpers.Script())
    if not oracle:
        stages = dataclasses.replace(stages, first_error=None)
    method = make_method(config_lib.validate(config), completion_tokens=24)
    return method.build(groups, stages, np.random.default_rng(0))


def test_vppo_rewards_the_prefix_before_the_first_error():
    built = build("vppo", helpers.group(RIGHT, EARLY), vppo__shorten="none")
    # A = 1 and 0.5 x 4/12: mean (1 + 1/6) / 2 = 0.58333.
    right, wrong = [row.advantages for row in built.rows]
    mean = (1 + 1 / 6) / 2
    np.testing.assert_allclose(right, 1 - mean, rtol=1e-5)
    np.testing.assert_allclose(wrong[:4], 0.5 - mean, rtol=1e-5)
    np.testing.assert_allclose(wrong[4:], -mean, rtol=1e-5)
    assert all(row.gate.all() for row in built.rows), "every token stays in its row's mean"
    assert built.metrics["process/first_error_step"] == 1
    assert built.metrics["process/prefix_frac"] == pytest.approx(4 / 12)
    assert built.metrics["process/locate_match_frac"] == 1
    lifted = build(
        "vppo", helpers.group(RIGHT, EARLY), vppo__shorten="none", vppo__relu="true"
    ).rows[1]
    np.testing.assert_allclose(lifted.advantages, [0] * 4 + [-mean] * 8, rtol=1e-5)


def test_vppo_shortens_the_prefix_by_the_length_of_the_prompt():
    group = helpers.group(EARLY, LATE)
    assert len(group.prompt) == PROMPT_TOKENS
    early, late = [row.advantages for row in build("vppo", group).rows]
    # 4 - 7 < 0: nothing is rewarded; 9 - 7 = 2 tokens are. Mean (0 + 0.5 x 2/12) / 2.
    mean = 0.5 * 2 / 12 / 2
    np.testing.assert_allclose(early, -mean, rtol=1e-5)
    np.testing.assert_allclose(late, [0.5 - mean] * 2 + [-mean] * 10, rtol=1e-5)


def test_cliff_centres_over_the_tokens_of_the_group():
    built = build("cliff", helpers.group(RIGHT, EARLY, EARLY, LATE))
    total = sum(float(row.advantages.sum()) for row in built.rows)
    assert total == pytest.approx(0, abs=1e-4)
    # mu = 1/4: A_cor = sqrt 3, A_inc = -1/sqrt 3, prefixes 0. Offset: (12 sqrt 3 - (8 + 8 + 3) / sqrt 3) / 48.
    offset = (12 * np.sqrt(3) - 19 / np.sqrt(3)) / 48
    np.testing.assert_allclose(built.rows[0].advantages, np.sqrt(3) - offset, rtol=1e-4)
    np.testing.assert_allclose(built.rows[3].advantages[:9], -offset, rtol=1e-4)
    np.testing.assert_allclose(built.rows[3].advantages[9:], -1 / np.sqrt(3) - offset, rtol=1e-4)


def test_cliff_penalises_an_over_long_completion_as_a_whole():
    group = helpers.group(RIGHT, LATE)
    cut = helpers.completion(LATE, truncated=True)
    group = dataclasses.replace(group, completions=(group.completions[0], cut))
    assert np.ptp(build("cliff", group).rows[1].advantages) == 0


def test_process_grpo_credits_steps_before_the_first_error():
    # Four steps each: 1 1 1 1 and 1 0 0 0: mean 5/8, std sqrt(15)/8.
    right, wrong = build("grpo_process", helpers.group(RIGHT, EARLY)).rows
    good, bad = 3 / np.sqrt(15), -5 / np.sqrt(15)
    steps = [0] * 4 + [1] * 3 + [2] * 2 + [3] * 3
    to_go = np.array([4 * good, 3 * good, 2 * good, good])
    np.testing.assert_allclose(right.advantages, to_go[steps], rtol=1e-4)
    to_go = np.array([good + 3 * bad, 3 * bad, 2 * bad, bad])
    np.testing.assert_allclose(wrong.advantages, to_go[steps], rtol=1e-4)


def test_a_completion_that_stops_too_early_has_a_step_without_credit():
    # "1 5 2 ; 1 7": all written steps are right, and the next one is missing.
    (row,) = build("grpo_process", helpers.group("1 5 2 ; 1 7")).rows
    assert row.advantages[0] > row.advantages[-1] and row.advantages[-1] < 0


@pytest.mark.parametrize("name", ["vppo", "cliff", "grpo_process"])
def test_only_wrong_completions_are_located_and_the_search_is_paid_for(name):
    # Every continuation finds the answer, so that only the last step can be wrong.
    script = helpers.Script(locate=[[RIGHT] * 8])
    built = build(
        name,
        helpers.group(RIGHT, LATE, EARLY),
        script=script,
        locate__kind="monte_carlo",
        locate__retest=0,
    )
    # Two rounds over both wrong completions: prefixes of 2 and 3 steps of 4.
    assert script.sampled == [("locate/0/8", 2), ("locate/1/8", 2)]
    assert built.metrics["process/locate_generations"] == 2 * 2 * 8
    assert built.metrics["process/locate_match_frac"] == 0.5
    assert built.metrics["process/locate_later_frac"] == 0.5
    assert built.metrics["process/first_error_step"] == 3


@pytest.mark.parametrize("name", ["vppo", "cliff", "grpo_process"])
def test_an_unknown_first_error_gives_no_credit(name):
    script = helpers.Script(locate=[[EARLY] * 8])  # no continuation is right, not even from nothing
    built = build(
        name,
        helpers.group(RIGHT, LATE),
        script=script,
        oracle=False,
        locate__kind="monte_carlo",
        locate__retest=0,
        vppo__shorten="none",
    )
    assert built.metrics["process/locate_unknown_frac"] == 1
    assert "process/first_error_step" not in built.metrics
    assert "process/locate_match_frac" not in built.metrics
    wrong = built.rows[1].advantages
    assert (wrong < 0).all()
    if name != "grpo_process":
        assert np.ptp(wrong) == 0


def test_a_wrong_answer_without_a_wrong_step_is_a_switch():
    # Every step is right, and the verdict says wrong all the same.
    group = helpers.group(RIGHT, RIGHT)
    wrong = dataclasses.replace(group.verdicts[0], reward=0.0, reason="wrong")
    group = dataclasses.replace(group, verdicts=(group.verdicts[0], wrong))
    last = build("vppo", group, vppo__shorten="none").rows[1].advantages
    assert np.flatnonzero(np.diff(last)).tolist() == [8]  # the last step starts at token 9
    nothing = build("vppo", group, vppo__shorten="none", locate__no_error="none").rows[1].advantages
    assert np.ptp(nothing) == 0


def test_which_groups_are_worth_training():
    groups = [helpers.group(RIGHT, RIGHT), helpers.group(RIGHT, LATE), helpers.group(LATE, LATE)]
    wanted = {"vppo": [False, True, True], "cliff": [False, True, False]}
    wanted["grpo_process"] = wanted["vppo"]
    for name, signals in wanted.items():
        method = make_method(config_lib.recipe(name), completion_tokens=24)
        assert [method.gives_signal(group) for group in groups] == signals
        built = build(name, *groups, vppo__shorten="none")
        for group, signal in enumerate(signals):
            trained = any(np.any(row.advantages) for row in built.rows[2 * group : 2 * group + 2])
            # Late errors alike: equal prefixes are rewarded, whatever the outcome.
            assert trained == signal


def test_settings_that_would_bias_or_cannot_work_are_refused():
    with pytest.raises(ValueError, match="vppo centres its advantages for 'seq_mean_token_mean'"):
        build("vppo", loss__aggregation="token_mean")
    with pytest.raises(ValueError, match="cliff centres its advantages for 'token_mean'"):
        build("cliff", loss__aggregation="seq_mean_token_mean")
    with pytest.raises(ValueError, match="gsm8k cannot judge steps"):
        build("vppo", task__name="gsm8k", task__path="train.jsonl")
    with pytest.raises(ValueError, match="this task cannot judge steps"):
        build("vppo", helpers.group(RIGHT, LATE), oracle=False)
