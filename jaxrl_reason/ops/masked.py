"""Masked reductions that are defined for zero and one unmasked element.

Device side, jit-safe. Reads: arrays. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

Axis = int | Sequence[int] | None


def _at_least_float32(x: Array) -> Array:
    # bfloat16 keeps 8 bits: a sum of a few hundred ones would already be wrong.
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def masked_sum(
    x: Shaped[Array, "*s"], mask: Bool[Array, "*s"], axis: Axis = None
) -> Float[Array, ...]:
    """Sum over unmasked elements: sum_i m_i x_i.

    Args:
      x: any shape, number or bool; ignored where mask is False, even NaN.
      mask: same shape, True where the element counts.
      axis: what to reduce; None: everything.
    Returns:
      float32 (or wider, as x) without the reduced axes; 0 where nothing is unmasked.
    Example:
      >>> print(masked_sum(jnp.array([1.0, 2.0, 9.0]), jnp.array([True, True, False])))
      3.0
    """
    return jnp.sum(jnp.where(mask, _at_least_float32(x), 0), axis=axis)


def masked_mean(
    x: Shaped[Array, "*s"], mask: Bool[Array, "*s"], axis: Axis = None
) -> Float[Array, ...]:
    """Mean over unmasked elements: sum_i m_i x_i / max(sum_i m_i, 1).

    Args:
      x: any shape, number or bool; ignored where mask is False, even NaN.
      mask: same shape, True where the element counts.
      axis: what to reduce; None: everything.
    Returns:
      float32 (or wider, as x) without the reduced axes; 0 where nothing is unmasked.
    Example:
      >>> print(masked_mean(jnp.array([1.0, 2.0, 9.0]), jnp.array([True, True, False])))
      1.5
    """
    total = masked_sum(x, mask, axis)
    return total / jnp.maximum(jnp.sum(mask, axis=axis, dtype=total.dtype), 1)


def masked_std(
    x: Shaped[Array, "*s"], mask: Bool[Array, "*s"], axis: Axis = None, ddof: int = 0
) -> Float[Array, ...]:
    """Standard deviation over unmasked elements: sqrt(sum_i m_i (x_i - mean)^2 / max(sum_i m_i - ddof, 1)).

    Args:
      x: any shape, number or bool; ignored where mask is False, even NaN.
      mask: same shape, True where the element counts.
      axis: what to reduce; None: everything.
      ddof: 0 for the population value, 1 for the sample value.
    Returns:
      float32 (or wider, as x) without the reduced axes; 0 where at most one element is unmasked. Gradient at 0: 0.
    Example:
      >>> print(masked_std(jnp.array([1.0, 3.0, 9.0]), jnp.array([True, True, False])))
      1.0
    """
    # Masked before the square: the slope of (NaN - mean)^2 is NaN even where the result is thrown away.
    x = jnp.where(mask, _at_least_float32(x), 0)
    count = jnp.sum(mask, axis=axis, keepdims=True, dtype=x.dtype)
    mean = jnp.sum(x, axis=axis, keepdims=True) / jnp.maximum(count, 1)
    squares = jnp.sum(jnp.square(jnp.where(mask, x - mean, 0)), axis=axis, keepdims=True)
    variance = jnp.squeeze(squares / jnp.maximum(count - ddof, 1), axis=axis)
    # sqrt has an infinite slope at 0, and 0 * inf would be NaN in the gradient: keep 0 away from it.
    return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
