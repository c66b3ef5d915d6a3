"""Grouped-query attention over several blocks of keys, without repeating a block that rows share.

Device side, jit-safe. Reads: queries, keys, values, masks. Writes: nothing.

Shape letters: B rows, t query tokens, H query heads, K key heads, R = H / K, Dh head width, s keys of a block,
n = B / g rows of a shared block, g rows that share one of its entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# (keys [n, s, K, Dh], values [n, s, K, Dh], mask [B, t, s]); n and s differ between blocks.
Block = tuple[Float[Array, "_ _ K Dh"], Float[Array, "_ _ K Dh"], Bool[Array, "B t _"]]

# Finite, so that a row with no allowed key gives 0 and not inf - inf.
_FORBIDDEN = -1e30


def attend(
    q: Float[Array, "B t H Dh"], blocks: Sequence[Block], *, scale: float
) -> Float[Array, "B t H Dh"]:
    """softmax over the keys of all blocks together: out = sum_s softmax(scale * q k_s) v_s.

    Args:
      q: [B, t, H, Dh] queries, float32 or bfloat16.
      blocks: (keys, values, mask) with keys and values [n, s, K, Dh] and mask [B, t, s], True where the query may
        look. K divides H: query head h reads key head h // (H / K). n divides B: entry i of a block serves rows
        i * B / n to (i + 1) * B / n - 1, and is not repeated in memory.
      scale: factor on the scores, usually Dh ** -0.5.
    Returns:
      [B, t, H, Dh] in the dtype of `q`; exactly 0 for a query with no allowed key. Scores, softmax and sums are
      float32.
    Raises:
      ValueError: heads or rows do not divide.
    Example:
      >>> q = jnp.zeros((1, 1, 2, 4))  # equal scores: the mean of the allowed values
      >>> v = jnp.asarray([1.0, 3.0, 9.0]).reshape(1, 3, 1, 1) * jnp.ones((1, 3, 1, 4))
      >>> mask = jnp.asarray([[[True, True, False]]])
      >>> print(attend(q, [(v, v, mask)], scale=0.5)[0, 0, 0])
      [2. 2. 2. 2.]

    Source: attention as in arXiv 1706.03762, equation 1, with grouped heads (2305.13245). Differs: blocks are joined
      in score space only (largest score and denominator are shared), so a prompt is kept once for all its samples.
    """
    blocks = [block for block in blocks if block[0].shape[1] > 0]
    _check_shapes(q, blocks)
    scores = [_scores(q, k, mask, scale) for k, _, mask in blocks]
    largest_BKRt = jnp.full(_score_shape(q, blocks), _FORBIDDEN, jnp.float32)
    for score_BKRts in scores:
        largest_BKRt = jnp.maximum(largest_BKRt, jnp.max(score_BKRts, axis=-1))
    # The softmax does not depend on the shift, so its gradient through the shift is 0.
    largest_BKRt = jax.lax.stop_gradient(largest_BKRt)
    total_BKRt = jnp.zeros_like(largest_BKRt)
    out_BKRtD = jnp.zeros((*largest_BKRt.shape, q.shape[-1]), jnp.float32)
    for score_BKRts, (_, v, mask) in zip(scores, blocks, strict=True):
        weight_BKRts = jnp.where(
            mask[:, None, None], jnp.exp(score_BKRts - largest_BKRt[..., None]), 0.0
        )
        total_BKRt += jnp.sum(weight_BKRts, axis=-1)
        out_BKRtD += _weighted_values(weight_BKRts, v)
    out_BKRtD /= jnp.where(total_BKRt > 0.0, total_BKRt, 1.0)[..., None]
    return jnp.moveaxis(out_BKRtD, 3, 1).reshape(q.shape).astype(q.dtype)


def _check_shapes(q: Array, blocks: Sequence[Block]) -> None:
    rows, _, num_heads, _ = q.shape
    for k, _, _ in blocks:
        if num_heads % k.shape[2]:
            raise ValueError(
                f"{num_heads} query heads over {k.shape[2]} key heads: the latter must divide the former"
            )
        if k.shape[0] == 0 or rows % k.shape[0]:
            raise ValueError(
                f"{rows} rows over a block of {k.shape[0]}: the block's size must divide the number of rows"
            )


def _score_shape(q: Array, blocks: Sequence[Block]) -> tuple[int, ...]:
    rows, num_queries, num_heads, _ = q.shape
    num_kv_heads = blocks[0][0].shape[2] if blocks else num_heads
    return rows, num_kv_heads, num_heads // num_kv_heads, num_queries


def _scores(q: Array, k: Array, mask: Array, scale: float) -> Array:
    """[B, K, R, t, s] float32. The rows and heads that share an entry are one matrix product with it.

    Written with the summed axis last on both sides: in any other order the backward pass transposes large arrays.
    """
    (rows, t, num_heads, head_dim), (n, s, num_kv_heads, _) = q.shape, k.shape
    g, ratio = rows // n, num_heads // num_kv_heads
    q_ngtKRD = q.reshape(n, g, t, num_kv_heads, ratio, head_dim)
    q_nKmD = q_ngtKRD.transpose(0, 3, 1, 4, 2, 5).reshape(n, num_kv_heads, -1, head_dim)
    k_nKsD = k.transpose(0, 2, 1, 3)
    score = jnp.einsum("nKmD,nKsD->nKms", q_nKmD, k_nKsD, preferred_element_type=jnp.float32)
    score = score.reshape(n, num_kv_heads, g, ratio, t, s)
    score_BKRts = jnp.moveaxis(score, 2, 1).reshape(rows, num_kv_heads, ratio, t, s)
    return jnp.where(mask[:, None, None], scale * score_BKRts, _FORBIDDEN)


def _weighted_values(weight_BKRts: Array, v: Array) -> Array:
    """[B, K, R, t, Dh] float32."""
    (rows, num_kv_heads, ratio, t, s), n = weight_BKRts.shape, v.shape[0]
    weight = weight_BKRts.reshape(n, rows // n, num_kv_heads, ratio, t, s).astype(v.dtype)
    weight_nKms = jnp.moveaxis(weight, 1, 2).reshape(n, num_kv_heads, -1, s)
    v_nKsD = v.transpose(0, 2, 1, 3)
    out = jnp.einsum("nKms,nKsD->nKmD", weight_nKms, v_nKsD, preferred_element_type=jnp.float32)
    out = out.reshape(n, num_kv_heads, rows // n, ratio, t, v.shape[-1])
    return jnp.moveaxis(out, 2, 1).reshape(rows, num_kv_heads, ratio, t, v.shape[-1])
