"""Implicit process rewards: a language model trained on outcomes, whose log-ratio to a reference pays every token.

Device side, jit-safe. Reads: a TrainBatch, log-probs, outcomes. Writes: nothing. Source: PRIME, arXiv 2502.01456.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from jaxrl_reason.algos import advantages as algos_advantages
from jaxrl_reason.algos import losses, values
from jaxrl_reason.ops import masked
from jaxrl_reason.types import TrainBatch


def outcome_loss(
    logprobs: Float[Array, "B T"],
    entropy: Float[Array, "B T"],
    batch: TrainBatch,
    coefficients: Float[Array, "B T"],
    *,
    beta: float,
) -> tuple[Float[Array, ""], losses.MetricSums]:
    """Cross-entropy of the outcome: -sum_n c_n (r log sigmoid(R) + (1 - r) log sigmoid(-R)).

    R = beta sum_t (log phi - log ref) is the implicit reward of a completion.

    Args:
      logprobs: log phi, under the parameters that are differentiated; ignored outside loss_mask.
      entropy: not read.
      batch: its `advantages` hold the outcome r in [0, 1] in every token, its `old_logprobs` log ref.
      coefficients: from `row_coefficients` with seq_mean_token_mean; a row counts with the sum of its tokens', so that
        every completion counts alike.
      beta: > 0, reward units per nat.
    Returns:
      (loss, metrics) as `losses.policy_loss`: a sum, and (numerator, denominator) pairs.
    Example:
      >>> mask, row, grid = jnp.array([[True, True]]), jnp.ones(1), jnp.zeros((1, 2))
      >>> ids = jnp.zeros((1, 2), int)
      >>> batch = TrainBatch(ids, mask, mask, grid + 1, grid - 2, None, row, ids[:, 0], row)
      >>> loss, _ = outcome_loss(jnp.array([[-1.0, -1.0]]), grid, batch, grid + 0.5, beta=0.5)
      >>> print(f"{loss:.4f}")  # R = 0.5 (1 + 1) = 1: log(1 + e^-1)
      0.3133

    Source: PRIME equation 6 (cross-entropy of the implicit reward model).
    """
    del entropy
    mask = batch.loss_mask
    ratio = jnp.where(
        mask, logprobs.astype(jnp.float32) - batch.old_logprobs.astype(jnp.float32), 0
    )
    reward = beta * jnp.sum(ratio, axis=1)
    outcome = masked.masked_mean(batch.advantages, mask, axis=1)
    weight = jnp.sum(jnp.where(mask, coefficients, 0), axis=1)
    loss = jnp.sum(weight * (jax.nn.softplus(reward) - outcome * reward))
    live = losses.live_rows(batch)
    rows = jnp.sum(live, dtype=jnp.float32)
    per_row = {"reward": reward, "accuracy": (reward > 0) == (outcome > 0.5)}
    sums = {
        f"policy/{name}": (masked.masked_sum(x, live), rows)
        for name, x in jax.lax.stop_gradient(per_row).items()
    }
    return loss, sums


def prime_advantages(
    step_rewards: Num[Array, "B T"],
    outcomes: Num[Array, " B"],
    mask: Bool[Array, "B T"],
    group_ids: Int[Array, " B"],
    *,
    num_groups: int,
    gamma: float,
    implicit_coef: float,
    outcome_coef: float,
) -> Float[Array, "B T"]:
    """A_it = a sum_{s>=t} gamma^{s-t} (r_is - mean of the others' mean_t r_jt) + b (o_i - mean of the others' o_j).

    The two returns have baselines of their own: each completion is compared with the rest of its group.

    Args:
      step_rewards: implicit reward r of each token; ignored outside mask.
      outcomes: o, in [0, 1].
      mask: tokens of the completion, EOS included.
      group_ids: in [0, num_groups).
      num_groups: most groups there can be, static.
      gamma: discount per token, in [0, 1].
      implicit_coef: a >= 0.
      outcome_coef: b >= 0.
    Returns:
      float32, without gradient; 0 outside mask, and in groups of one, which have nothing to be compared with.
    Example:
      >>> rewards, mask = jnp.array([[0.5, 0.25], [0.25, 0.0]]), jnp.array([[True, True], [True, False]])
      >>> kwargs = dict(num_groups=1, gamma=1.0, implicit_coef=1.0, outcome_coef=1.0)
      >>> print(prime_advantages(rewards, jnp.array([1.0, 0.0]), mask, jnp.array([0, 0]), **kwargs))
      [[ 1.25   1.   ]
       [-1.125  0.   ]]

    Source: PRIME equation 5. Differs from its code in verl, whose baseline takes off the token itself instead of the
      completion's mean; the two agree on average only.
    """

    def of_group(x: Array) -> Array:
        return jax.ops.segment_sum(x, group_ids, num_segments=num_groups)[group_ids]

    means = masked.masked_mean(step_rewards, mask, axis=1)
    size = of_group(jnp.ones_like(means))
    others = (of_group(means) - means) / jnp.maximum(size - 1, 1)
    centred = jnp.where(mask, step_rewards.astype(means.dtype) - others[:, None], 0)
    # With values of 0 and lambda 1 the estimate is the discounted return.
    implicit = values.gae(centred, jnp.zeros_like(centred), mask, gamma=gamma, lam=1.0)
    outcome = algos_advantages.group_advantages(
        outcomes, group_ids, kind="leave_one_out", num_groups=num_groups
    )
    both = implicit_coef * implicit + outcome_coef * outcome[:, None]
    return jax.lax.stop_gradient(jnp.where(mask & (size > 1)[:, None], both, 0))
