"""From logits to the distribution that tokens are drawn from: temperature, top-k, top-p.

Device side, jit-safe. Reads: logits. Writes: nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def adjust_logits(
    logits: Float[Array, "B V"],
    *,
    temperature: Float[Array, ""] | float | int,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Float[Array, "B V"]:
    """logits / temperature, with every token outside top-k or the top-p nucleus at -inf.

    `log_softmax` of the result is the sampling distribution itself, renormalised over the tokens that are left.

    Args:
      logits: [B, V].
      temperature: > 0, may be traced. Temperature 0 (the most likely token) is the sampler's business.
      top_k: keep the k most likely tokens, and those that tie with the last of them; 0: off.
      top_p: in (0, 1]; after top-k, keep the smallest set of most likely tokens whose probability reaches top_p,
        and those that tie with the last of them; 1: off.
    Returns:
      [B, V] float32; at least one entry per row is finite.
    Raises:
      ValueError: top_k < 0 or top_p outside (0, 1].
    Example:
      >>> print(adjust_logits(jnp.asarray([[4.0, 1.0, 3.0]]), temperature=2.0, top_k=2))
      [[ 2.  -inf  1.5]]

    Source: top-p, arXiv 1904.09751, section 3.1.
    """
    if top_k < 0:
        raise ValueError(f"top_k = {top_k}: must be >= 0; 0 keeps every token")
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p = {top_p}: must be in (0, 1]; 1 keeps every token")
    logits_BV = logits.astype(jnp.float32) / jnp.asarray(temperature, jnp.float32)
    if 0 < top_k < logits.shape[-1]:
        kth_B1 = jax.lax.top_k(logits_BV, top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV >= kth_B1, logits_BV, -jnp.inf)
    if top_p < 1.0:
        logits_BV = _keep_nucleus(logits_BV, top_p)
    return logits_BV


def _keep_nucleus(logits_BV: Array, top_p: float) -> Array:
    descending_BV = -jnp.sort(-logits_BV, axis=-1)
    probs_BV = jax.nn.softmax(descending_BV, axis=-1)
    # What comes before a token, not including it: the first token is always kept.
    before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
    last_B1 = jnp.sum(before_BV < top_p, axis=-1, keepdims=True) - 1
    threshold_B1 = jnp.take_along_axis(descending_BV, last_B1, axis=-1)
    return jnp.where(logits_BV >= threshold_B1, logits_BV, -jnp.inf)


# Tokens per block of the two-step draw: a block's running sum stays short, so it is cheap and exact.
_BLOCK = 64


def draw(key: Key[Array, ""], logits: Float[Array, "B V"]) -> Int[Array, " B"]:
    """Token of each row with probability softmax(logits): first its block of 64 tokens, then the token in it.

    Two uniform numbers per row instead of V Gumbel ones, which would cost more than the model on a CPU. Two, because
    one float32 uniform has 23 bits: too few for the tail of a large vocabulary.

    Args:
      key: of this draw. Row b's numbers depend on the key and on b alone.
      logits: [B, V]; -inf is never drawn. At least one entry per row is finite.
    Returns:
      [B] int32.
    Example:
      >>> print(draw(jax.random.key(0), jnp.asarray([[-jnp.inf, 0.0], [0.0, -jnp.inf]])))
      [1 0]
    """
    (rows, vocab), blocks = logits.shape, -(-logits.shape[1] // _BLOCK)
    weight_BV = jnp.exp(logits.astype(jnp.float32) - jnp.max(logits, axis=-1, keepdims=True))
    weight_BV = jnp.pad(weight_BV, ((0, 0), (0, blocks * _BLOCK - vocab)))
    weight_BnW = weight_BV.reshape(rows, blocks, _BLOCK)
    uniform_B2 = jax.random.uniform(key, (rows, 2))
    block_B = _first_above(jnp.sum(weight_BnW, axis=-1), uniform_B2[:, 0])
    weight_BW = jnp.take_along_axis(weight_BnW, block_B[:, None, None], axis=1)[:, 0]
    return (block_B * _BLOCK + _first_above(weight_BW, uniform_B2[:, 1])).astype(jnp.int32)


def _first_above(weight_Bn: Array, uniform_B: Array) -> Array:
    """First index whose running sum exceeds uniform * total, among those of positive weight."""
    running_Bn = jnp.cumsum(weight_Bn, axis=-1)
    above_Bn = running_Bn > (uniform_B * running_Bn[:, -1])[:, None]
    # Rounding can leave a step in the running sum where the weight is 0, or nothing above at all.
    above_Bn &= weight_Bn > 0.0
    return jnp.where(
        jnp.any(above_Bn, axis=-1), jnp.argmax(above_Bn, axis=-1), jnp.argmax(weight_Bn, axis=-1)
    )
