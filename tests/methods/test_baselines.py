"""Mixed, RTS, PRIME and PPO on hand-made groups: rewards, what the second model is asked and taught, advantages."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason.methods import make_method
from tests.methods import helpers

# 3 8 5 2 modulo 10; 12 tokens each, EOS included; four steps.
RIGHT = "1 5 2 ; 1 7 ; 8 ; = 8"
EARLY = "1 5 2 ; 1 9 ; 0 ; = 0"  # step 1 is wrong: 1 of 4 steps is good
LATE = "1 5 2 ; 1 7 ; 8 ; = 9"  # step 3 is wrong: 3 of 4
SHORT = "= 0"  # wrong, 3 tokens


def build(name: str, *groups, companion=None, **changes):
    config = config_lib.recipe(name)
    config_lib.override(config, [f"{k.replace('__', '.')}={v}" for k, v in changes.items()])
    method = make_method(config_lib.validate(config), completion_tokens=24)
    stages = helpers.stages(helpers.Script(), companion)
    return method.build(groups, stages, np.random.default_rng(0))


def scalars(built) -> list[float]:
    assert all(np.ptp(row.advantages) == 0 for row in built.rows)
    return [float(row.advantages[0]) for row in built.rows]


def test_mixed_adds_the_share_of_good_steps_to_the_outcome():
    # 0.25 x 1 + 0.75 x 1 = 1; 0.25 x 1/4 = 1/16; 0.25 x 3/4 = 3/16. Mean 5/12.
    group = helpers.group(RIGHT, EARLY, LATE)
    built = build("mixed", group, mixed__process_share=0.25, advantage__kind="centred")
    want = np.array([1, 1 / 16, 3 / 16]) - 5 / 12
    assert scalars(built) == pytest.approx(want.tolist(), abs=1e-6)
    assert built.metrics["reward/mixed_mean"] == pytest.approx(5 / 12)
    # All wrong, and yet something to learn: who came further.
    early, late = scalars(build("mixed", helpers.group(EARLY, LATE)))
    assert early == pytest.approx(-1, abs=1e-4) and late == pytest.approx(1, abs=1e-4)


def test_rts_squashes_the_share_of_good_steps():
    group = helpers.group(RIGHT, EARLY, LATE)
    built = build("rts", group, rts__slope=4, rts__offset=0.5, advantage__kind="centred")
    # sigmoid(4 (1 - 1/2)), sigmoid(4 (1/4 - 1/2)), sigmoid(4 (3/4 - 1/2)).
    rewards = 1 / (1 + np.exp([-2.0, 1.0, -1.0]))
    assert scalars(built) == pytest.approx((rewards - rewards.mean()).tolist(), abs=1e-6)


def test_prime_teaches_the_outcomes_first_and_then_pays_by_the_model():
    def figures(completion):  # log phi - log ref: 0.5 on the first token, else 0
        return np.float32([0.25] + [-0.25] * (len(completion) - 1))

    prm = helpers.Companion(figures)
    group = helpers.group(RIGHT, SHORT)
    built = build("prime", group, companion=prm, prime__beta=0.4)
    assert prm.predictions_before_training == 0, "it is updated before it is used"
    for row, outcome in zip(prm.trained, (1, 0), strict=True):
        assert row.gate.all() and set(row.advantages) == {outcome}
        np.testing.assert_array_equal(row.old_logprobs, np.float32(-0.25))  # the reference's
    # Rewards 0.4 x 0.5 = 0.2 at the first token: means 0.2 / 12 and 0.2 / 3. Outcomes 1 - 0 and 0 - 1.
    right, wrong = (row.advantages for row in built.rows)
    assert right[0] == pytest.approx(0.2 - 12 * 0.2 / 3 + 1, abs=1e-5)
    assert right[1] == pytest.approx(-11 * 0.2 / 3 + 1, abs=1e-5)
    assert right[11] == pytest.approx(-0.2 / 3 + 1, abs=1e-5)
    assert wrong[0] == pytest.approx(0.2 - 3 * 0.2 / 12 - 1, abs=1e-5)
    assert built.metrics["process/implicit_reward_right"] == pytest.approx(0.2)
    assert built.companion == prm.state


def test_prime_drops_groups_that_are_too_easy_or_too_hard():
    method = make_method(config_lib.recipe("prime"), completion_tokens=24)
    groups = {1: [RIGHT] + [EARLY] * 4, 2: [RIGHT] * 4 + [EARLY], 3: [RIGHT] * 9 + [EARLY]}
    kept = [method.gives_signal(helpers.group(*texts)) for texts in groups.values()]
    assert kept == [True, True, False], "0.2 and 0.8 count as in between, 0.9 does not"
    assert not method.gives_signal(helpers.group(EARLY, LATE))


def test_ppo_by_hand():
    # Values 0.5 before every token, gamma = 1, lambda = 0.5. delta is 0 but for the last token: 1 - 0.5 or 0 - 0.5.
    critic = helpers.Companion(lambda completion: np.full(len(completion), 0.5, np.float32))
    group = helpers.group(RIGHT, SHORT)
    built = build("ppo", group, companion=critic, ppo__lam=0.5, advantage__whiten="none")
    right, wrong = (row.advantages for row in built.rows)
    np.testing.assert_allclose(right, 0.5 * 0.5 ** np.arange(11, -1, -1.0), rtol=1e-5)
    np.testing.assert_allclose(wrong, [-0.125, -0.25, -0.5], rtol=1e-5)
    assert critic.predictions_before_training == 1, "the values are those of before its update"
    taught = critic.trained
    np.testing.assert_allclose(taught[0].advantages, right + 0.5, rtol=1e-5)  # returns
    np.testing.assert_array_equal(taught[1].old_logprobs, np.float32(0.5))
    # Whitened over all 15 tokens; the returns are made before that.
    critic.trained.clear()
    whitened = build("ppo", group, companion=critic, ppo__lam=0.5)
    tokens = np.concatenate([row.advantages for row in whitened.rows])
    plain = np.concatenate([right, wrong])
    np.testing.assert_allclose(tokens, (plain - plain.mean()) / plain.std(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(critic.trained[0].advantages, right + 0.5, rtol=1e-5)


def test_ppo_leaves_truncated_completions_out_of_the_loss_on_request():
    group = helpers.group(RIGHT, EARLY)
    cut = helpers.completion(EARLY, truncated=True)
    group = dataclasses.replace(group, completions=(group.completions[0], cut))
    critic = helpers.Companion()
    built = build("ppo", group, companion=critic, overlong__filter="true")
    assert built.rows[0].gate.all() and not built.rows[1].gate.any()
    assert not critic.trained[1].gate.any()
    np.testing.assert_array_equal(built.rows[1].advantages, 0)


def test_ppo_names_its_recipe():
    loss = config_lib.recipe("ppo").loss
    assert (loss.ratio, loss.aggregation, loss.dual_clip) == ("token", "token_mean", 3.0)
