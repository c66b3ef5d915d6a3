"""Log-probs and entropy of chosen tokens, streamed over the vocabulary: no [B, T, V] array forward or backward.

Device side, jit-safe. Reads: arrays. Writes: nothing.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Stands for the logit of a column that does not count: exp underflows to 0, and unlike -inf it times 0 is 0.
_NEVER = -1e30


def token_logprobs(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    *,
    temperature: float | int = 1.0,
    vocab_chunk: int = 4096,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Log-prob of each target and entropy of its distribution: log softmax(hidden head^T / temperature).

    The vocabulary is walked in chunks, forward with a running log-sum-exp, backward by computing a chunk's logits anew,
    so the largest array has B * T * min(V, vocab_chunk) elements. The matrix products run in the dtype of `hidden` and
    accumulate in float32; everything after them is float32.

    Args:
      hidden: final hidden states, float32 or bfloat16; position t predicts `targets[:, t]`.
      head: output projection (or tied embedding); cast to the dtype of `hidden`, a chunk at a time.
      targets: token ids in [0, V). Padding: any valid id; the caller masks the result.
      temperature: > 0, divides the logits.
      vocab_chunk: most vocabulary columns held at once, >= 1; need not divide V.
    Returns:
      (logprobs, entropy), nats, float32; differentiable with respect to hidden and head, both outputs.
    Raises:
      ValueError: temperature <= 0, vocab_chunk < 1 or an empty vocabulary.
    Example:
      >>> hidden, head = jnp.zeros((1, 2, 3)), jnp.zeros((4, 3))
      >>> logprobs, entropy = token_logprobs(hidden, head, jnp.array([[0, 3]]), vocab_chunk=2)
      >>> print(logprobs.round(4), entropy.round(4))  # log(1/4), log(4)
      [[-1.3863 -1.3863]] [[1.3863 1.3863]]

    Source: running soft-max normaliser, arXiv 1805.02867, Algorithm 3; differs: carries the entropy too,
      and has a backward pass.
    """
    if temperature <= 0:
        raise ValueError(f"temperature = {temperature}: must be > 0, since it divides the logits")
    if vocab_chunk < 1:
        raise ValueError(f"vocab_chunk = {vocab_chunk}: must be >= 1 vocabulary columns")
    vocab = head.shape[0]
    if vocab == 0:
        raise ValueError("head has 0 rows: the vocabulary must hold at least one token")
    # Even chunks: 5000 columns at most 4096 at once are 2 x 2500, not 4096 and an overlap.
    num_chunks = -(-vocab // vocab_chunk)
    return _streamed(hidden, head, targets, float(temperature), -(-vocab // num_chunks))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _streamed(hidden, head, targets, temperature, chunk):
    logprobs, entropy, _ = _forward(hidden, head, targets, temperature, chunk)
    return logprobs, entropy


def _chunk_logits(hidden, head, index, temperature, chunk):
    """(logits [B, T, c], head rows [c, D], first column) of the chunk number `index`; repeated columns get _NEVER."""
    vocab = head.shape[0]
    first = jnp.minimum(index * chunk, vocab - chunk)
    # The whole head as one chunk needs no slice, which keeps a sharded vocabulary where it is.
    rows = head if chunk == vocab else jax.lax.dynamic_slice_in_dim(head, first, chunk)
    rows = rows.astype(hidden.dtype)
    logits = (
        jnp.einsum("btd,vd->btv", hidden, rows, preferred_element_type=_float_dtype(hidden))
        / temperature
    )
    # The last chunk ends at V and so may overlap the one before it.
    is_new = first + jnp.arange(chunk) >= index * chunk
    return jnp.where(is_new[None, None, :], logits, _NEVER), rows, first


def _float_dtype(hidden):
    return jnp.promote_types(hidden.dtype, jnp.float32)


def _over_chunks(body, head, chunk, carry):
    num_chunks = -(-head.shape[0] // chunk)
    # A loop of one round would compile to the same program, later.
    return body(0, carry) if num_chunks == 1 else jax.lax.fori_loop(0, num_chunks, body, carry)


def _forward(hidden, head, targets, temperature, chunk):
    dtype = _float_dtype(hidden)

    def body(index, carry):
        peak, total, tilt, chosen = carry
        logits, _, first = _chunk_logits(hidden, head, index, temperature, chunk)
        new_peak = jnp.maximum(peak, jnp.max(logits, axis=-1))
        shifted = logits - new_peak[..., None]
        weights = jnp.exp(shifted)
        # tilt = sum_v exp(l_v - peak) (l_v - peak): relative to the peak, so that the entropy is no difference of large
        # numbers.
        decay = jnp.exp(peak - new_peak)
        tilt = decay * (tilt + total * (peak - new_peak)) + jnp.sum(weights * shifted, axis=-1)
        total = decay * total + jnp.sum(weights, axis=-1)
        column = targets - first
        logit = jnp.take_along_axis(logits, jnp.clip(column, 0, chunk - 1)[..., None], axis=-1)[
            ..., 0
        ]
        is_here = (column >= 0) & (column < chunk) & (targets >= index * chunk)
        return new_peak, total, tilt, jnp.where(is_here, logit, chosen)

    zeros = jnp.zeros(targets.shape, dtype)
    start = (jnp.full(targets.shape, _NEVER, dtype), zeros, zeros, zeros)
    peak, total, tilt, chosen = _over_chunks(body, head, chunk, start)
    log_normaliser = peak + jnp.log(total)
    return chosen - log_normaliser, jnp.log(total) - tilt / total, log_normaliser


def _streamed_fwd(hidden, head, targets, temperature, chunk):
    logprobs, entropy, log_normaliser = _forward(hidden, head, targets, temperature, chunk)
    return (logprobs, entropy), (hidden, head, targets, log_normaliser, entropy)


def _streamed_bwd(temperature, chunk, residuals, cotangents):
    hidden, head, targets, log_normaliser, entropy = residuals
    logprob_bar, entropy_bar = (g[..., None] for g in cotangents)
    dtype = _float_dtype(hidden)

    def body(index, carry):
        hidden_bar, head_bar = carry
        logits, rows, first = _chunk_logits(hidden, head, index, temperature, chunk)
        logp = logits - log_normaliser[..., None]
        probs = jnp.exp(logp)
        is_target = (first + jnp.arange(chunk))[None, None, :] == targets[..., None]
        # d logprob / d l_v = [v is target] - p_v ;  d entropy / d l_v = -p_v (log p_v + entropy).
        logits_bar = -probs * (logprob_bar + entropy_bar * (logp + entropy[..., None]))
        logits_bar += jnp.where(is_target & (logits > _NEVER), logprob_bar, 0)
        logits_bar = (logits_bar / temperature).astype(hidden.dtype)
        hidden_bar += jnp.einsum("btv,vd->btd", logits_bar, rows, preferred_element_type=dtype)
        rows_bar = jnp.einsum("btv,btd->vd", logits_bar, hidden, preferred_element_type=dtype)
        if chunk == head.shape[0]:
            return hidden_bar, rows_bar.astype(head.dtype)
        # Added, not written: columns that overlap the chunk before hold its gradient, and theirs here is 0.
        rows_bar = jax.lax.dynamic_slice_in_dim(head_bar, first, chunk) + rows_bar.astype(
            head.dtype
        )
        return hidden_bar, jax.lax.dynamic_update_slice_in_dim(head_bar, rows_bar, first, axis=0)

    start = (jnp.zeros(hidden.shape, dtype), jnp.zeros_like(head))
    hidden_bar, head_bar = _over_chunks(body, head, chunk, start)
    return hidden_bar.astype(hidden.dtype), head_bar, None


_streamed.defvjp(_streamed_fwd, _streamed_bwd)
