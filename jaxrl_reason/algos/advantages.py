"""Advantages of whole completions, within their group or over the batch, and the length penalty that may enter the
reward before them.

Device side, jit-safe. Reads: rewards and group ids of a Rollout. Writes: nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num


class _Group(NamedTuple):
    """What the estimators may use of a group, spread to its rows."""

    centred: Float[
        Array, " B"
    ]  # reward minus the group mean; exactly 0 in a group of equal rewards
    squares: Float[Array, " B"]  # sum of the group's squared deviations
    size: Float[Array, " B"]  # unmasked rows in the group, at least 1


def _zscore(group: _Group, ddof: int, eps: float) -> Array:
    return group.centred / (jnp.sqrt(group.squares / jnp.maximum(group.size - ddof, 1)) + eps)


def _centred(group: _Group, ddof: int, eps: float) -> Array:
    del ddof, eps
    return group.centred


def _leave_one_out(group: _Group, ddof: int, eps: float) -> Array:
    del ddof, eps
    # r_i minus the mean of the others is n / (n - 1) times r_i minus the mean of all.
    return group.centred * group.size / jnp.maximum(group.size - 1, 1)


ADVANTAGES = {"zscore": _zscore, "centred": _centred, "leave_one_out": _leave_one_out}


def group_advantages(
    rewards: Num[Array, " B"],
    group_ids: Int[Array, " B"],
    *,
    kind: str,
    num_groups: int,
    ddof: int = 0,
    eps: float = 1e-6,
    row_mask: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """Advantage of each completion relative to its group: (r - mean) / (std + eps), r - mean, or n/(n-1) (r - mean).

    Groups may have different sizes and stand in any order.

    Args:
      rewards: any real unit.
      group_ids: in [0, num_groups); rows with one id form a group.
      kind: zscore (GRPO), centred (Dr. GRPO) or leave_one_out (RLOO).
      num_groups: most groups there can be, static.
      ddof: of the std in zscore: 0 as in the papers, 1 as in verl and TRL.
      eps: > 0, added to the std in zscore.
      row_mask: False on padding rows, which belong to no group and get 0; None: no padding.
    Returns:
      float32, without gradient. Exactly 0 in a group of equal rewards, so also in a group of one.
    Raises:
      ValueError: an unknown kind.
    Example:
      >>> rewards, groups = jnp.array([1.0, 0.0, 0.5]), jnp.array([0, 0, 1])
      >>> print(group_advantages(rewards, groups, kind="leave_one_out", num_groups=2))
      [ 1. -1.  0.]

    Source: GRPO arXiv 2402.03300 section 4.1, Dr. GRPO 2503.20783, RLOO 2402.14740; differs: a group of one gets 0,
      where verl lets the raw reward through.
    """
    if kind not in ADVANTAGES:
        raise ValueError(f"advantage kind = {kind!r}: must be one of {', '.join(ADVANTAGES)}")
    mask = jnp.ones(rewards.shape, bool) if row_mask is None else row_mask
    rewards = jnp.where(mask, rewards.astype(jnp.promote_types(rewards.dtype, jnp.float32)), 0)
    # Padding rows form one more group, which is thrown away.
    ids = jnp.where(mask, group_ids, num_groups)

    def of_group(reduce, x):
        return reduce(x, ids, num_segments=num_groups + 1)[ids]

    size = jnp.maximum(of_group(jax.ops.segment_sum, mask.astype(rewards.dtype)), 1)
    # Relative to the group's lowest reward: equal rewards then centre to exactly 0 (the float mean of three times 0.1
    # is not 0.1, and eps would blow the rest up), and small spreads around a large reward keep their digits.
    above = rewards - of_group(jax.ops.segment_min, rewards)
    centred = jnp.where(mask, above - of_group(jax.ops.segment_sum, above) / size, 0)
    group = _Group(centred, of_group(jax.ops.segment_sum, jnp.square(centred)), size)
    return jax.lax.stop_gradient(ADVANTAGES[kind](group, ddof, eps))


def whiten(
    values: Float[Array, " B"], weights: Num[Array, " B"], *, ddof: int = 0, eps: float = 1e-6
) -> Float[Array, " B"]:
    """Values normalised over the whole batch: (x - mean) / (std + eps), row i counted weights_i times.

    Args:
      values: advantages before it, any real unit.
      weights: >= 0; 1 in every row, or the row's trained tokens: then all tokens of the batch have mean 0 and std 1. A
        row of weight 0 counts nowhere and gets 0.
      ddof: of the std: 0 population, 1 sample.
      eps: > 0, added to the std.
    Returns:
      float32, without gradient. Exactly 0 where all values of the batch are equal.
    Example:
      >>> print(whiten(jnp.array([1.0, 0.0, 0.0]), jnp.array([2, 1, 1])).round(3))
      [ 1. -1. -1.]

    Source: REINFORCE++, arXiv 2501.03262, global advantage normalisation; verl and OpenRLHF weigh by tokens. Unlike a
      normalisation within the group it is not per prompt: by tokens, a group of equal rewards may get an advantage.
    """
    weights = weights.astype(jnp.float32)
    counted = weights > 0
    values = jnp.where(counted, values.astype(jnp.float32), 0)
    # Relative to the lowest value, as in `group_advantages`: equal values then centre to exactly 0.
    lowest = jnp.min(jnp.where(counted, values, jnp.inf), initial=jnp.inf)
    above = jnp.where(counted, values - lowest, 0)
    size = jnp.sum(weights)
    centred = jnp.where(counted, above - jnp.sum(weights * above) / jnp.maximum(size, 1), 0)
    variance = jnp.sum(weights * jnp.square(centred)) / jnp.maximum(size - ddof, 1)
    return jax.lax.stop_gradient(centred / (jnp.sqrt(variance) + eps))


def overlong_penalty(
    lengths: Int[Array, " B"], *, max_tokens: int, penalty_tokens: int
) -> Float[Array, " B"]:
    """Soft punishment of long completions, added to the reward: clip((max - penalty - length) / penalty, -1, 0).

    Args:
      lengths: completion lengths in tokens, EOS included.
      max_tokens: L_max, the budget: from here on the penalty is -1.
      penalty_tokens: L_cache, over so many last tokens of the budget the penalty falls from 0 to -1; 0: off.
    Returns:
      float32 in [-1, 0], reward units.
    Raises:
      ValueError: penalty_tokens outside [0, max_tokens].
    Example:
      >>> print(overlong_penalty(jnp.array([6, 8, 10, 12]), max_tokens=10, penalty_tokens=4))
      [ 0.  -0.5 -1.  -1. ]

    Source: DAPO, arXiv 2503.14476, equation 13.
    """
    if not 0 <= penalty_tokens <= max_tokens:
        raise ValueError(
            f"penalty_tokens = {penalty_tokens}: must be in [0, {max_tokens}], a part of the budget max_tokens"
        )
    if penalty_tokens == 0:
        return jnp.zeros(lengths.shape, jnp.float32)
    over = (max_tokens - penalty_tokens) - lengths
    return jnp.clip(over.astype(jnp.float32) / penalty_tokens, -1, 0)
