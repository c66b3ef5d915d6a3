"""Values of a critic: estimates and losses worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.algos import losses, values
from jaxrl_reason.types import TrainBatch

# Three tokens, reward 1 at the last, gamma = 0.5, lambda = 0.5.
# delta_2 = 1 - 0.4 = 0.6; delta_1 = 0.5 * 0.4 - 0.2 = 0; delta_0 = 0.5 * 0.2 - 0.6 = -0.5
# A_2 = 0.6; A_1 = 0 + 0.25 * 0.6 = 0.15; A_0 = -0.5 + 0.25 * 0.15 = -0.4625
REWARDS, VALUES = jnp.array([[0.0, 0, 1]]), jnp.array([[0.6, 0.2, 0.4]])
ADVANTAGES = [-0.4625, 0.15, 0.6]
HALF = {"gamma": 0.5, "lam": 0.5}


def test_gae_by_hand():
    got = values.gae(REWARDS, VALUES, jnp.ones((1, 3), bool), **HALF)
    np.testing.assert_allclose(got[0], ADVANTAGES, atol=1e-6)


def test_gae_ends_at_the_last_token_and_ignores_what_is_outside():
    # Padding on both sides, and two tokens of another speaker inside, full of figures that must not be read.
    mask = np.array([[False, True, False, False, True, True, False]])
    rewards, found = np.full((2, 1, 7), np.nan, np.float32)
    rewards[mask], found[mask] = REWARDS[0], VALUES[0]
    got = np.asarray(values.gae(*map(jnp.asarray, (rewards, found, mask)), **HALF))
    np.testing.assert_allclose(got[mask], ADVANTAGES, atol=1e-6)
    np.testing.assert_array_equal(got[~mask], 0)


def test_gae_limits_are_the_return_and_the_one_step_error():
    rng = np.random.default_rng(0)
    rewards, found = rng.standard_normal((2, 4, 5)).astype(np.float32)
    to_go = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]
    after = np.pad(found[:, 1:], ((0, 0), (0, 1)))
    rewards, found, mask = jnp.asarray(rewards), jnp.asarray(found), jnp.ones((4, 5), bool)
    whole = values.gae(rewards, found, mask, gamma=1.0, lam=1.0)
    np.testing.assert_allclose(whole, to_go - found, atol=1e-5)
    one = values.gae(rewards, found, mask, gamma=0.9, lam=0.0)
    np.testing.assert_allclose(one, rewards + 0.9 * after - found, atol=1e-5)
    compiled = jax.jit(values.gae, static_argnames=("gamma", "lam"))
    np.testing.assert_allclose(compiled(rewards, found, mask, gamma=1.0, lam=1.0), whole, atol=1e-6)


def test_gae_of_bfloat16_is_added_up_in_float32():
    ones = jnp.ones((1, 600), jnp.bfloat16)  # their bfloat16 sum would stop at 256
    got = values.gae(ones, 0 * ones, jnp.ones((1, 600), bool), gamma=1.0, lam=1.0)
    assert got.dtype == jnp.float32 and got[0, 0] == 600


def batch(returns, old, mask=None) -> TrainBatch:
    returns = jnp.asarray(returns, jnp.float32)
    rows, columns = returns.shape
    mask = jnp.ones((rows, columns), bool) if mask is None else jnp.asarray(mask)
    ids, weight = jnp.zeros((rows, columns), jnp.int32), jnp.ones(rows)
    old = jnp.asarray(old, jnp.float32)
    return TrainBatch(ids, mask, mask, returns, old, None, weight, ids[:, 0], weight)


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "want", "slope"),
    [
        (0.5, 0.4, 1.0, 0.2, 0.125, -0.5),  # within the clip: (0.5)^2 / 2
        (0.9, 0.4, 1.0, 0.2, 0.08, 0.0),  # moved towards the target too far: (0.6 - 1)^2 / 2, flat
        (
            0.0,
            0.4,
            1.0,
            0.2,
            0.5,
            -1.0,
        ),  # moved away too far: the larger error counts, and pulls back
        (0.9, 0.4, 1.0, 0.0, 0.005, -0.1),  # no clip
    ],
)
def test_value_loss_by_hand(value, old, target, clip, want, slope):
    def loss(x):
        one = jnp.ones((1, 1))
        return values.value_loss(x, one, batch([[target]], [[old]]), one, value_clip=clip)[0]

    found, gradient = jax.value_and_grad(loss)(jnp.full((1, 1), value))
    assert found == pytest.approx(want, abs=1e-6)
    assert gradient[0, 0] == pytest.approx(slope, abs=1e-6)


def test_value_loss_does_not_see_what_is_outside_the_mask():
    mask = [[True, False], [False, False]]
    nan = jnp.full((2, 2), jnp.nan)
    given = batch(nan.at[0, 0].set(1.0), nan.at[0, 0].set(0.0), mask)
    coefficients = losses.row_coefficients(given, aggregation="token_mean", max_completion=2)

    def loss(x):
        return values.value_loss(x, nan, given, coefficients, value_clip=0.5)

    (found, sums), gradient = jax.value_and_grad(loss, has_aux=True)(nan.at[0, 0].set(0.25))
    assert found == pytest.approx(0.75**2 / 2)
    np.testing.assert_allclose(gradient, [[-0.75, 0], [0, 0]], atol=1e-6)
    means = losses.mean_metrics(sums)
    assert means["policy/value"] == 0.25 and means["policy/return"] == 1
    assert losses.mean_metrics(sums)["policy/clip_frac"] == 0


def test_values_belong_to_the_state_before_the_token():
    hidden = jnp.arange(8.0).reshape(1, 4, 2)
    got = values.completion_values(hidden, jnp.array([1.0, 1.0]), jnp.float32(0.5), first_column=2)
    # h_1 = 2 + 3, h_2 = 4 + 5; the last state precedes nothing.
    np.testing.assert_allclose(got, [[0, 0, 5.5, 9.5]])
