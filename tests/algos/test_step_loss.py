"""Cross-entropy at the ends of steps, by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.algos.step_loss import step_cross_entropy

P = np.array([[0.8, 0.5, 0.1]])  # of class 1


def arrays(dtype=jnp.float32):
    logits = jnp.asarray(np.log(np.stack([1 - P, P], axis=-1)), dtype)
    return logits, jnp.array([[1.0, 0.25, 0.0]], dtype), jnp.array([[True, True, True]])


def test_hard_and_soft_targets():
    expected = -(np.log(0.8) + 0.25 * np.log(0.5) + 0.75 * np.log(0.5) + np.log(0.9))
    np.testing.assert_allclose(step_cross_entropy(*arrays()), expected, rtol=1e-6)
    loss = step_cross_entropy(*arrays(jnp.bfloat16))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-2)
    # Two classes are one: binary cross-entropy of the difference of the logits.
    logits, targets, mask = arrays()
    z = logits[..., 1] - logits[..., 0]
    binary = jnp.sum(jax.nn.softplus(z) - targets * z)
    np.testing.assert_allclose(step_cross_entropy(logits, targets, mask), binary, rtol=1e-6)


def test_what_is_not_labelled_counts_for_nothing_in_any_dtype():
    logits, targets, _ = arrays()
    mask = jnp.array([[False, True, False]])
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        # No number means "ignore", so none can be lost in a cast; not even what is no number disturbs.
        hidden = jnp.where(mask, targets, jnp.array([[jnp.nan, 0, -100.0]])).astype(dtype)
        wild = jnp.where(mask[..., None], logits, jnp.inf).astype(dtype)
        loss, gradient = jax.value_and_grad(step_cross_entropy)(wild, hidden, mask)
        np.testing.assert_allclose(loss, np.log(2), rtol=1e-3)
        assert (np.asarray(gradient[0, [0, 2]], np.float32) == 0).all()
        np.testing.assert_allclose(np.asarray(gradient[0, 1], np.float32), [-0.25, 0.25], atol=1e-3)
    assert step_cross_entropy(logits, targets, jnp.zeros((1, 3), bool)) == 0
