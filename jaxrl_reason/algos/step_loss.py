"""Loss of a process reward model: cross-entropy of two classes at the ends of steps.

Device side, jit-safe. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def step_cross_entropy(
    logits: Float[Array, "B T classes"],
    targets: Float[Array, "B T"],
    label_mask: Bool[Array, "B T"],
) -> Float[Array, ""]:
    """Sum over labelled ends of steps of -(y log p_1 + (1 - y) log p_0), p = softmax(logits).

    Divide by the number of labels of the whole batch for the mean.

    Args:
      logits: [B, T, 2] any float dtype; class 1: right so far.
      targets: [B, T] y in [0, 1], hard or soft; anything, NaN too, where there is no label.
      label_mask: [B, T] bool, True where a labelled step ends. A mask and not a number that means "ignore": no cast
        of `targets` can turn one into the other.
    Returns:
      float32; 0 without a label.
    Example:
      >>> logits = jnp.log(jnp.array([[[0.25, 0.75], [0.5, 0.5]]]))
      >>> print(step_cross_entropy(logits, jnp.array([[1.0, jnp.nan]]), jnp.array([[True, False]])).round(4))
      0.2877
    Source: Qwen2.5-Math-PRM, arXiv 2501.07301 section 2; soft targets: OmegaPRM, arXiv 2406.06592 section 3.4.
    """
    # Before the logarithm, so that masked places give no NaN to the gradient either.
    logits = jnp.where(label_mask[..., None], logits.astype(jnp.float32), 0.0)
    targets = jnp.where(label_mask, targets.astype(jnp.float32), 0.0)
    log_p = jax.nn.log_softmax(logits, axis=-1)
    loss = -(targets * log_p[..., 1] + (1 - targets) * log_p[..., 0])
    return jnp.sum(jnp.where(label_mask, loss, 0.0))
