"""Temperature, top-k, top-p by hand, and draws that follow the distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.rollout import sampling

# Not in order, so that a kept token must be found by value.
PROBS = np.asarray([[0.1, 0.4, 0.2, 0.3], [0.05, 0.05, 0.8, 0.1]], np.float32)


def probs(**settings) -> np.ndarray:
    adjusted = sampling.adjust_logits(
        jnp.log(PROBS), **{"temperature": 1.0, "top_k": 0, "top_p": 1.0, **settings}
    )
    return np.asarray(jax.nn.softmax(adjusted))


def test_temperature_divides_the_logits():
    # Row 0 at temperature 1/2: squares .01 .16 .04 .09, sum .30.
    np.testing.assert_allclose(
        probs(temperature=0.5)[0], [1 / 30, 16 / 30, 4 / 30, 9 / 30], atol=1e-6
    )
    np.testing.assert_allclose(probs(), PROBS, atol=1e-6)


def test_top_k_keeps_the_k_likeliest_and_ties():
    # Row 0: .4 and .3 stay, .4/.7 and .3/.7. Row 1: .8 and .1.
    expected = [[0, 4 / 7, 0, 3 / 7], [0, 0, 8 / 9, 1 / 9]]
    np.testing.assert_allclose(probs(top_k=2), expected, atol=1e-6)
    np.testing.assert_allclose(probs(top_k=3)[1], PROBS[1], atol=1e-6)  # .05 twice: both stay
    np.testing.assert_allclose(probs(top_k=4), PROBS, atol=1e-6)
    np.testing.assert_allclose(probs(top_k=9), PROBS, atol=1e-6)


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    # Row 0: .4 < .5, .4 + .3 >= .5, so two tokens. Row 1: .8 alone.
    expected = [[0, 4 / 7, 0, 3 / 7], [0, 0, 1, 0]]
    np.testing.assert_allclose(probs(top_p=0.5), expected, atol=1e-6)
    np.testing.assert_allclose(probs(top_p=1e-6), [[0, 1, 0, 0], [0, 0, 1, 0]], atol=1e-6)


def test_top_p_is_taken_after_top_k_and_temperature():
    # Row 0, top-k 2: .4/.7 = .57 alone reaches .5. Before top-k, .4 would not.
    np.testing.assert_allclose(probs(top_k=2, top_p=0.5)[0], [0, 1, 0, 0], atol=1e-6)
    # Row 0 at temperature 1/2: 16/30 alone reaches .5.
    np.testing.assert_allclose(probs(temperature=0.5, top_p=0.5)[0], [0, 1, 0, 0], atol=1e-6)


def test_half_precision_logits_become_float32():
    adjusted = sampling.adjust_logits(jnp.log(PROBS).astype(jnp.bfloat16), temperature=0.7)
    assert adjusted.dtype == jnp.float32


@pytest.mark.parametrize(
    ("settings", "text"), [({"top_k": -1}, "top_k = -1"), ({"top_p": 0.0}, "top_p = 0.0")]
)
def test_bad_settings_are_named(settings, text):
    with pytest.raises(ValueError, match=text):
        probs(**settings)


@pytest.mark.parametrize("vocab", [3, 64, 150])
def test_draws_follow_the_distribution(vocab: int):
    # Weights 1, 2, 3, 0, 1, 2, 3, 0 ...: every block of the two-step draw holds tokens that must never come.
    weight = np.asarray([1, 2, 3, 0] * 38, np.float32)[:vocab]
    rows = 40_000
    logits = jnp.broadcast_to(jnp.log(weight)[None], (rows, vocab)) + 3.0
    tokens = np.asarray(jax.jit(sampling.draw)(jax.random.key(5), logits))
    assert tokens.dtype == np.int32
    counts = np.bincount(tokens, minlength=vocab)
    assert (counts[weight == 0] == 0).all()
    expected = (rows * weight / weight.sum())[weight > 0]
    # Chi-squared with n - 1 degrees of freedom has mean n - 1 and variance 2 (n - 1): five deviations.
    n = len(expected)
    assert np.sum((counts[weight > 0] - expected) ** 2 / expected) < n - 1 + 5 * np.sqrt(2 * n)


def test_a_row_draws_the_same_whatever_stands_beside_it():
    logits = np.random.default_rng(1).normal(size=(40, 100)).astype(np.float32)
    draw = jax.jit(sampling.draw)
    tokens = np.asarray(draw(jax.random.key(2), logits))
    np.testing.assert_array_equal(tokens[:3], draw(jax.random.key(2), logits[:3]))
    assert len(set(tokens.tolist())) > 20


def test_rounding_never_draws_what_has_no_weight():
    # The last tokens have no weight, and the running sum of many tiny ones is not exact.
    logits = np.full((512, 1000), -16.0, np.float32)
    logits[:, 0], logits[:, 500:] = 0.0, -np.inf
    tokens = jax.jit(sampling.draw)(jax.random.key(3), logits)
    assert int(tokens.max()) < 500
