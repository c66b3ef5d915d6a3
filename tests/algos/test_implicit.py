"""Implicit rewards: cross-entropy and advantages worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.algos import implicit, losses
from tests.algos.batches import random_batch

SETTINGS = {"gamma": 1.0, "implicit_coef": 1.0, "outcome_coef": 1.0}
# One group of three: rewards of tokens, means .3, -.2, .1; outcomes 1, 0, 0.
REWARDS = np.float32([[0.4, 0.2, 0], [-0.2, 0, 0], [0, 0.1, 0.2]])
MASK = np.array([[True, True, False], [True, False, False], [True, True, True]])
OUTCOMES = np.float32([1, 0, 0])
GROUP = np.zeros(3, np.int32)


def prime(rewards=REWARDS, outcomes=OUTCOMES, mask=MASK, groups=GROUP, num_groups=1, **changes):
    settings = SETTINGS | changes
    return np.asarray(
        implicit.prime_advantages(
            *map(jnp.asarray, (rewards, outcomes, mask, groups)), num_groups=num_groups, **settings
        )
    )


def test_prime_advantages_by_hand():
    # Baselines of the rewards: (-.2 + .1) / 2 = -.05; (.3 + .1) / 2 = .2; (.3 - .2) / 2 = .05.
    # Outcomes less the mean of the others: 1, -.5, -.5.
    want = [
        [0.45 + 0.25 + 1, 0.25 + 1, 0],
        [-0.4 - 0.5, 0, 0],
        [-0.05 + 0.05 + 0.15 - 0.5, 0.05 + 0.15 - 0.5, 0.15 - 0.5],
    ]
    np.testing.assert_allclose(prime(), want, atol=1e-6)
    # gamma = 1/2 and weights 2 and 3: 2 (.45 + .25 / 2) + 3 for the first token.
    other = prime(gamma=0.5, implicit_coef=2.0, outcome_coef=3.0)
    assert other[0, 0] == pytest.approx(2 * (0.45 + 0.125) + 3, abs=1e-6)
    assert other[0, 1] == pytest.approx(2 * 0.25 + 3, abs=1e-6)


def test_prime_ignores_padding_and_company_and_gives_nothing_without_comparison():
    wide = np.pad(REWARDS, ((0, 1), (2, 3)), constant_values=np.nan)
    mask = np.pad(MASK, ((0, 1), (2, 3)))
    mask[3, 4], wide[3, 4] = True, 7.0  # a group of one
    groups, outcomes = np.int32([1, 1, 1, 0]), np.float32([1, 0, 0, 1])
    got = prime(wide, outcomes, mask, groups, num_groups=2)
    np.testing.assert_allclose(got[:3, 2:5], prime(), atol=1e-6)
    np.testing.assert_array_equal(got[3], 0)
    np.testing.assert_array_equal(got[~mask], 0)


def test_prime_rows_may_stand_in_any_order_and_compile():
    order = [2, 0, 1]
    np.testing.assert_allclose(
        prime(REWARDS[order], OUTCOMES[order], MASK[order]), prime()[order], atol=1e-6
    )
    names = ("num_groups", "gamma", "implicit_coef", "outcome_coef")
    compiled = jax.jit(implicit.prime_advantages, static_argnames=names)
    got = compiled(REWARDS, OUTCOMES, MASK, GROUP, num_groups=1, **SETTINGS)
    np.testing.assert_allclose(got, prime(), atol=1e-6)
    # Which token was paid matters, not only how much the completion got.
    swapped = REWARDS.copy()
    swapped[0] = [0.2, 0.4, 0]
    assert np.abs(prime(swapped) - prime()).max() > 0.1


def test_prime_of_bfloat16_is_added_up_in_float32():
    ones = jnp.ones((2, 600), jnp.bfloat16) * jnp.asarray([[1.0], [0.0]], jnp.bfloat16)
    got = prime(ones, jnp.zeros(2), np.ones((2, 600), bool), GROUP[:2])
    np.testing.assert_allclose(got[:, 0], [600, -600])


def test_outcome_loss_by_hand_and_its_gradient():
    given = random_batch(rows=4, columns=6)
    mask = np.asarray(given.loss_mask)
    outcome = np.float32([1, 0, 1, 0])
    given = given._replace(
        advantages=jnp.asarray(outcome[:, None] * np.ones((4, 6), np.float32)),
        row_weight=jnp.asarray([1.0, 1.0, 1.0, 0.0]),
        stream=jnp.zeros(4, jnp.int32),
    )
    logprobs = jnp.asarray(np.random.default_rng(1).standard_normal((4, 6)), jnp.float32)
    coefficients = losses.row_coefficients(
        given, aggregation="seq_mean_token_mean", max_completion=4
    )

    def loss(x):
        return implicit.outcome_loss(x, x, given, coefficients, beta=0.3)

    (found, sums), gradient = jax.value_and_grad(loss, has_aux=True)(
        jnp.where(mask, logprobs, jnp.nan)
    )
    reward = 0.3 * np.where(mask, logprobs - given.old_logprobs, 0).sum(axis=1)
    right = 1 / (1 + np.exp(-reward))
    entropy = -outcome * np.log(right) - (1 - outcome) * np.log(1 - right)
    assert found == pytest.approx(entropy[:3].mean(), rel=1e-5)  # the last row is padding
    want = 0.3 * (right - outcome)[:, None] / 3 * mask * np.asarray(given.row_weight)[:, None]
    np.testing.assert_allclose(gradient, want, atol=1e-6)
    accuracy = np.mean((reward > 0)[:3] == (outcome[:3] > 0.5))
    assert losses.mean_metrics(sums)["policy/accuracy"] == pytest.approx(accuracy)
