"""Values of a critic: predictions, generalised advantage estimates, and the clipped value loss.

Device side, jit-safe. Reads: a TrainBatch, hidden states. Writes: nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from jaxrl_reason.algos import losses
from jaxrl_reason.ops import masked
from jaxrl_reason.types import TrainBatch


def completion_values(
    hidden: Float[Array, "B T D"],
    kernel: Float[Array, " D"],
    bias: Float[Array, ""],
    *,
    first_column: int = 1,
) -> Float[Array, "B T"]:
    """Value of the state in which each token is chosen: V_t = kernel . h_{t-1} + bias.

    Args:
      hidden: final hidden states, float32 or bfloat16.
      kernel: of the value head.
      bias: of the value head.
      first_column: columns before it are not computed, static, >= 1.
    Returns:
      float32, reward units; 0 in columns before `first_column`: no state comes before column 0.
    Example:
      >>> hidden = jnp.array([[[1.0, 0.0], [2.0, 1.0], [9.0, 9.0]]])
      >>> print(completion_values(hidden, jnp.array([1.0, -1.0]), jnp.float32(0.5)))
      [[0.  1.5 1.5]]
    """
    states = hidden[:, first_column - 1 : -1].astype(jnp.float32)
    values = states @ kernel.astype(jnp.float32) + bias.astype(jnp.float32)
    return jnp.pad(values, ((0, 0), (first_column, 0)))


def gae(
    rewards: Num[Array, "B T"],
    values: Num[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    gamma: float,
    lam: float,
) -> Float[Array, "B T"]:
    """Generalised advantage estimate: A_t = delta_t + gamma lam A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t.

    Columns outside the mask do not count as time: what comes after them is carried across without a decay.

    Args:
      rewards: of each token, reward units; ignored outside mask.
      values: before each token; ignored outside mask. After the last token the value is 0, also where the budget
        ended the completion: its reward says so.
      mask: tokens of the completion.
      gamma: discount per token, in [0, 1].
      lam: lambda, in [0, 1]; 1 makes A_t the discounted return minus V_t.
    Returns:
      float32, without gradient; 0 outside mask. The return is this plus V_t, before any whitening.
    Example:
      >>> rewards, values = jnp.array([[0.0, 0.0, 1.0]]), jnp.array([[0.5, 0.5, 0.5]])
      >>> print(gae(rewards, values, jnp.ones((1, 3), bool), gamma=1.0, lam=0.5))
      [[0.125 0.25  0.5  ]]

    Source: arXiv 1506.02438 equation 16.
    """

    def step(carry, column):
        next_value, tail = carry
        reward, value, counts = column
        advantage = reward + gamma * next_value - value + gamma * lam * tail
        carry = jnp.where(counts, value, next_value), jnp.where(counts, advantage, tail)
        return carry, jnp.where(counts, advantage, 0)

    columns = tuple(
        jnp.where(mask, x.astype(jnp.promote_types(x.dtype, jnp.float32)), 0).T
        for x in (rewards, values)
    )
    nothing = jnp.zeros_like(columns[0][0] + columns[1][0])
    _, advantages = jax.lax.scan(step, (nothing, nothing), (*columns, mask.T), reverse=True)
    return jax.lax.stop_gradient(advantages.T)


def value_loss(
    values: Float[Array, "B T"],
    entropy: Float[Array, "B T"],
    batch: TrainBatch,
    coefficients: Float[Array, "B T"],
    *,
    value_clip: float,
) -> tuple[Float[Array, ""], losses.MetricSums]:
    """Clipped regression: sum_nt c_nt max((V - R)^2, (clip(V, V_old - v, V_old + v) - R)^2) / 2.

    Args:
      values: V, under the parameters that are differentiated; ignored outside loss_mask.
      entropy: not read: there is none.
      batch: its `advantages` hold the returns R, its `old_logprobs` the values V_old of before the update.
      coefficients: from `row_coefficients` of the whole batch.
      value_clip: v > 0; 0: off.
    Returns:
      (loss, metrics) as `losses.policy_loss`: a sum, and (numerator, denominator) pairs.
    Example:
      >>> mask, row, grid = jnp.array([[True, True]]), jnp.ones(1), jnp.zeros((1, 2))
      >>> ids = jnp.zeros((1, 2), int)
      >>> batch = TrainBatch(ids, mask, mask, grid + 1, grid, None, row, ids[:, 0], row)
      >>> values = jnp.array([[0.8, 0.4]])  # R = 1, V_old = 0: the first is clipped to 0.5
      >>> loss, _ = value_loss(values, grid, batch, grid + 0.5, value_clip=0.5)
      >>> print(f"{loss:.4f}")  # (0.5^2 + 0.6^2) / 2 / 2
      0.1525

    Source: PPO as in verl; the clip is that of the code published with arXiv 1707.06347.
    """
    del entropy
    mask = batch.loss_mask
    values = jnp.where(mask, values.astype(jnp.float32), 0)
    returns = jnp.where(mask, batch.advantages.astype(jnp.float32), 0)
    error = jnp.square(values - returns)
    clipped_error = error
    if value_clip:
        old = jnp.where(mask, batch.old_logprobs.astype(jnp.float32), 0)
        near_old = jnp.clip(values, old - value_clip, old + value_clip)
        clipped_error = jnp.square(near_old - returns)
    loss = jnp.sum(jnp.where(mask, coefficients * 0.5 * jnp.maximum(error, clipped_error), 0))
    live = mask & (batch.row_weight != 0)[:, None]
    tokens = jnp.sum(live, dtype=jnp.float32)
    per_token = {
        "value": values,
        "return": returns,
        "squared_error": error,
        "clip_frac": clipped_error > error,
    }
    sums = {
        f"policy/{name}": (masked.masked_sum(x, live), tokens)
        for name, x in jax.lax.stop_gradient(per_token).items()
    }
    return loss, sums
