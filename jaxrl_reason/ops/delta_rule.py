"""The gated delta rule: a memory of fixed size that forgets, and that corrects what it holds under a key.

Device side, jit-safe. Reads: queries, keys, values, decays, strengths. Writes: nothing.

Shape letters: B rows, t tokens, H heads, E key width, F value width, N chunks, C tokens of a chunk (rows i, columns j).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

CHUNK = 64  # tokens


def gated_delta(
    q: Float[Array, "B t H E"],
    k: Float[Array, "B t H E"],
    v: Float[Array, "B t H F"],
    log_decay: Float[Array, "B t H"],
    beta: Float[Array, "B t H"],
    state: Float[Array, "B H E F"],
    *,
    chunk: int = CHUNK,
) -> tuple[Float[Array, "B t H F"], Float[Array, "B H E F"]]:
    """S_t = a_t S_{t-1} + k_t d_t^T, d_t = beta_t (v_t - a_t S_{t-1}^T k_t), a_t = exp(log_decay_t); out S_t^T q_t.

    Args:
      q: [B, t, H, E] float32.
      k: [B, t, H, E] float32, of norm at most 1.
      v: [B, t, H, F] float32.
      log_decay: [B, t, H] float32, at most 0; 0 on padding.
      beta: [B, t, H] float32 in [0, 1]; 0 on padding, which then leaves the state as it is.
      state: [B, H, E, F] float32, before the first of these tokens.
      chunk: C, tokens that are computed as matrix products; no result depends on it.
    Returns:
      (out [B, t, H, F] float32, state after the last token).
    Example:
      >>> one = jnp.ones((1, 2, 1, 1))  # the same key twice: what the second writes replaces the first
      >>> v = jnp.asarray([3.0, 5.0]).reshape(1, 2, 1, 1)
      >>> keep, write = jnp.zeros((1, 2, 1)), jnp.ones((1, 2, 1))
      >>> out, state = gated_delta(one, one, v, keep, write, jnp.zeros((1, 1, 1, 1)))
      >>> print(out[0, :, 0, 0], state[0, 0])
      [3. 5.] [[5.]]

    Source: Gated DeltaNet, arXiv 2412.06464, equation 10; chunks as in section 3.3. Differs: the corrections of a chunk
      come from one triangular solve, and one token alone takes the equation as it stands.
    """
    if q.shape[1] == 1:
        return _step(q, k, v, log_decay, beta, state)
    return _scan_chunks(q, k, v, log_decay, beta, state, min(chunk, q.shape[1]))


def _step(
    q: Array, k: Array, v: Array, log_decay: Array, beta: Array, state: Array
) -> tuple[Array, Array]:
    """One token."""
    q_BHE, k_BHE, v_BHF = q[:, 0], k[:, 0], v[:, 0]
    state = state * jnp.exp(log_decay[:, 0])[..., None, None]
    held_BHF = jnp.einsum("BHEF,BHE->BHF", state, k_BHE)
    delta_BHF = beta[:, 0][..., None] * (v_BHF - held_BHF)
    state = state + k_BHE[..., :, None] * delta_BHF[..., None, :]
    return jnp.einsum("BHEF,BHE->BHF", state, q_BHE)[:, None], state


def _scan_chunks(
    q: Array, k: Array, v: Array, log_decay: Array, beta: Array, state: Array, chunk: int
) -> tuple[Array, Array]:
    """Chunk after chunk, with matrix products inside each.

    With c_i the sum of log decays up to and with token i of a chunk, and S the state before the chunk, unrolling the
    rule gives S_i = e^{c_i} S + sum_{j <= i} e^{c_i - c_j} k_j d_j^T. Put into d_i, with A_ij = beta_i e^{c_i - c_j}
    k_i k_j^T for j < i and 0 elsewhere: (I + A) d = beta v - (beta e^c k) S. Both right-hand sides are solved for at
    once for all chunks, d = own - read S, so that the scan only multiplies.
    """
    rows, num_tokens, num_heads, _ = q.shape
    q, k, v, log_decay, beta = (_chunks(x, chunk) for x in (q, k, v, log_decay, beta))
    sums_NBHC = jnp.cumsum(log_decay[..., 0], axis=-1)
    upto_ij = jnp.tril(jnp.ones((chunk, chunk), bool))[None, None, None]
    gap_NBHij = sums_NBHC[..., :, None] - sums_NBHC[..., None, :]
    # Masked before exp: to the right of i it would overflow, and inf * 0 is no gradient.
    decay_NBHij = jnp.exp(jnp.where(upto_ij, gap_NBHij, -jnp.inf))
    scores_NBHij = jnp.einsum("NBHiE,NBHjE->NBHij", q, k) * decay_NBHij
    system_NBHij = jnp.einsum("NBHiE,NBHjE->NBHij", beta * k, k) * decay_NBHij
    grown = jnp.exp(sums_NBHC)[..., None]
    solved = jax.lax.linalg.triangular_solve(
        system_NBHij,  # its diagonal is not read: it counts as 1
        jnp.concatenate([beta * v, beta * grown * k], axis=-1),
        left_side=True,
        lower=True,
        unit_diagonal=True,
    )
    own_NBHCF, read_NBHCE = jnp.split(solved, [v.shape[-1]], axis=-1)
    left = jnp.exp(sums_NBHC[..., -1:] - sums_NBHC)[..., None]

    def step(state, inputs):
        own, read, q, scores, k, decay = inputs
        delta = own - jnp.einsum("BHCE,BHEF->BHCF", read, state)
        out = jnp.einsum("BHCE,BHEF->BHCF", q, state) + jnp.einsum("BHij,BHjF->BHiF", scores, delta)
        state = decay[..., None, None] * state + jnp.einsum("BHCE,BHCF->BHEF", k, delta)
        return state, out

    inputs = (own_NBHCF, read_NBHCE, grown * q, scores_NBHij, left * k, grown[..., -1, 0])
    state, out_NBHCF = jax.lax.scan(step, state, inputs)
    out = out_NBHCF.transpose(1, 0, 3, 2, 4).reshape(rows, -1, num_heads, v.shape[-1])
    return out[:, :num_tokens], state


def _chunks(x: Array, chunk: int) -> Array:
    """[B, t, H, ...] -> [N, B, H, C, ...] with at least one last axis; zeros, which write nothing, fill the rest."""
    rows, num_tokens, num_heads = x.shape[:3]
    x = x.reshape(rows, num_tokens, num_heads, -1)
    x = jnp.pad(x, ((0, 0), (0, -num_tokens % chunk), (0, 0), (0, 0)))
    return x.reshape(rows, -1, chunk, num_heads, x.shape[-1]).transpose(1, 0, 3, 2, 4)
