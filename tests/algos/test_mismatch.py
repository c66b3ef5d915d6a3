"""Weights for a sampler that is not the trainer: exact values, and what is said of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.algos import mismatch

# Ratios 2, 1/2, 8 | 1/4, 1 and padding.
RATIOS = np.float32([[2, 0.5, 8], [0.25, 1, 1]])
MASK = jnp.array([[True, True, True], [True, True, False]])
SAMPLER = jnp.log(jnp.array([[0.25, 0.5, 0.1], [0.4, 0.3, 0.2]]))
TRAINER = jnp.where(MASK, SAMPLER + np.log(RATIOS), np.nan)
BOUNDS = {"low": 0.5, "high": 5.0}


@pytest.mark.parametrize(
    ("level", "kind", "want"),
    [
        ("token", "tis", [[2, 0.5, 5], [0.25, 1, 1]]),
        ("token", "icepop", [[2, 0.5, 0], [0, 1, 1]]),  # the bounds count as inside
        # 2 / 2 x 8 = 8 and 1/4 x 1 for whole completions.
        ("sequence", "tis", [[5, 5, 5], [0.25, 0.25, 1]]),
        ("sequence", "icepop", [[0, 0, 0], [0, 0, 1]]),
    ],
)
def test_weights_by_hand(level, kind, want):
    ratios = mismatch.LEVELS[level](TRAINER, SAMPLER, MASK)
    weights = mismatch.CORRECTIONS[kind](ratios, **BOUNDS)
    np.testing.assert_allclose(weights, want, rtol=1e-6)
    compiled = jax.jit(mismatch.LEVELS[level])(TRAINER, SAMPLER, MASK)
    np.testing.assert_allclose(compiled, ratios, rtol=1e-6)


def test_weights_are_constants_and_never_overflow():
    def total(trainer):
        return mismatch.token_ratios(trainer, SAMPLER, MASK).sum()

    np.testing.assert_array_equal(jax.grad(total)(TRAINER), 0)
    far = mismatch.sequence_ratios(jnp.full((1, 3), 80.0), jnp.zeros((1, 3)), MASK[:1])
    assert np.isfinite(np.square(far)).all()


def test_statistics_are_of_the_raw_ratios():
    ratios = mismatch.token_ratios(TRAINER, SAMPLER, MASK)
    weights = mismatch.CORRECTIONS["icepop"](ratios, **BOUNDS)
    found = mismatch.statistics(ratios, weights, MASK)
    assert found["ratio_mean"] == pytest.approx(11.75 / 5)
    assert found["ratio_min"] == pytest.approx(0.25) and found["ratio_max"] == pytest.approx(8)
    assert found["cut_frac"] == pytest.approx(2 / 5)
    squares = 4 + 0.25 + 64 + 0.0625 + 1
    assert found["effective_frac"] == pytest.approx(11.75**2 / (5 * squares))
    # One token that weighs all: a third of three.
    one = jnp.array([[3.0, 0, 0]])
    alone = mismatch.statistics(one, one, MASK[:1])
    assert alone["effective_frac"] == pytest.approx(1 / 3)


def test_ratios_of_bfloat16_are_added_up_in_float32():
    trainer = jnp.full((1, 600), 1 / 128, jnp.bfloat16)
    got = mismatch.sequence_ratios(trainer, 0 * trainer, jnp.ones((1, 600), bool))
    assert got.dtype == jnp.float32 and got[0, 0] == pytest.approx(np.exp(600 / 128), rel=1e-5)
