"""Advantages of tokens from process feedback: the prefix before the first error, and rewards of steps.

Device side, jit-safe. Reads: outcomes, first errors or step rewards of a batch of completions. Writes: nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from jaxrl_reason.ops import masked


def prefix_advantages(
    correct: Bool[Array, " B"],
    prefix: Bool[Array, "B T"],
    mask: Bool[Array, "B T"],
    group_ids: Int[Array, " B"],
    *,
    num_groups: int,
    alpha: float,
    relu: bool = False,
) -> Float[Array, "B T"]:
    """VPPO: A_it = 1 on correct completions, alpha on the rewarded prefix of wrong ones, 0 elsewhere, minus the mean of
    A_i = mean_t A_it over the group; no std.

    The centring is exact for a loss that averages over each completion first (seq_mean_token_mean).

    Args:
      correct: outcome of each completion.
      prefix: rewarded tokens; read in wrong completions only.
      mask: tokens of the completion, EOS included.
      group_ids: in [0, num_groups).
      num_groups: most groups there can be, static.
      alpha: value of a rewarded prefix, in [0, 1].
      relu: after the centring, raise negative advantages of rewarded prefixes to 0; nothing else.
    Returns:
      float32, without gradient; 0 outside mask.
    Example:
      >>> correct, ids = jnp.array([True, False]), jnp.array([0, 0])
      >>> mask, prefix = jnp.ones((2, 2), bool), jnp.array([[False, False], [True, False]])
      >>> print(prefix_advantages(correct, prefix, mask, ids, num_groups=1, alpha=0.5))
      [[ 0.375  0.375]
       [-0.125 -0.625]]

    Source: VPPO, arXiv 2601.18984 (the one on verifiable prefixes).
    """
    rewarded = prefix & mask & ~correct[:, None]
    raw = jnp.where(correct[:, None], 1.0, jnp.where(rewarded, alpha, 0.0)).astype(jnp.float32)
    of_row = masked.masked_mean(raw, mask, axis=1)
    rows = jax.ops.segment_sum(jnp.ones_like(of_row), group_ids, num_segments=num_groups)
    total = jax.ops.segment_sum(of_row, group_ids, num_segments=num_groups)
    centred = raw - (total / jnp.maximum(rows, 1))[group_ids][:, None]
    if relu:
        centred = jnp.where(rewarded, jnp.maximum(centred, 0), centred)
    return jax.lax.stop_gradient(jnp.where(mask, centred, 0))


def cliff_advantages(
    correct: Bool[Array, " B"],
    prefix: Bool[Array, "B T"],
    mask: Bool[Array, "B T"],
    group_ids: Int[Array, " B"],
    *,
    num_groups: int,
    prefix_scale: float,
) -> Float[Array, "B T"]:
    """Cliff: A_cor = (1 - mu) / sigma on correct completions, A_inc = -mu / sigma from the first error on, lambda A_cor
    before it, minus their mean over the group's tokens; sigma = sqrt(mu (1 - mu)).

    VPPO's twin for a loss that averages over tokens (token_mean): here the token sum of each group is zero.

    Args:
      correct: outcome of each completion; mu is its mean in the group.
      prefix: tokens before the first error; read in wrong completions only.
      mask: tokens of the completion, EOS included.
      group_ids: in [0, num_groups).
      num_groups: most groups there can be, static.
      prefix_scale: lambda in [0, 1].
    Returns:
      float32, without gradient; 0 outside mask, and in groups whose outcomes are all the same, where sigma is 0.
    Example:
      >>> correct, ids = jnp.array([True, False]), jnp.array([0, 0])
      >>> mask, prefix = jnp.ones((2, 2), bool), jnp.array([[False, False], [True, False]])
      >>> print(cliff_advantages(correct, prefix, mask, ids, num_groups=1, prefix_scale=0.0))
      [[ 0.75  0.75]
       [-0.25 -1.25]]

    Source: Cliff, arXiv 2609.02817.
    """

    def of_group(x: Array) -> Array:
        return jax.ops.segment_sum(x, group_ids, num_segments=num_groups)[group_ids]

    rate = correct.astype(jnp.float32)
    mean = of_group(rate) / of_group(jnp.ones_like(rate))
    mixed = (mean > 0) & (mean < 1)
    sigma = jnp.sqrt(jnp.where(mixed, mean * (1 - mean), 1))
    right, wrong = ((1 - mean) / sigma)[:, None], (-mean / sigma)[:, None]
    raw = jnp.where(correct[:, None], right, jnp.where(prefix, prefix_scale * right, wrong))
    tokens = of_group(jnp.sum(mask, axis=1, dtype=jnp.float32))
    offset = of_group(masked.masked_sum(raw, mask, axis=1)) / jnp.maximum(tokens, 1)
    return jax.lax.stop_gradient(jnp.where(mask & mixed[:, None], raw - offset[:, None], 0))


def step_advantages(
    step_rewards: Num[Array, "B S"],
    step_mask: Bool[Array, "B S"],
    step_ids: Int[Array, "B T"],
    group_ids: Int[Array, " B"],
    *,
    num_groups: int,
    ddof: int = 0,
    eps: float = 1e-6,
) -> Float[Array, "B T"]:
    """GRPO with process supervision: A_it = sum over steps j that end at or after t of (r_ij - mean) / (std + eps).

    Mean and std are over all steps of the group.

    Args:
      step_rewards: reward of each step, any real unit; ignored where step_mask is False.
      step_mask: which steps exist.
      step_ids: step of each token; -1 outside the completion.
      group_ids: in [0, num_groups).
      num_groups: most groups there can be, static.
      ddof: of the std: 0 population, 1 sample.
      eps: > 0, added to the std.
    Returns:
      float32, without gradient; 0 outside the completion. Exactly 0 in a group whose step rewards are all equal.
    Example:
      >>> rewards, mask = jnp.array([[1.0, 0.0]]), jnp.ones((1, 2), bool)
      >>> ids = jnp.array([[0, 0, 1, -1]])
      >>> print(step_advantages(rewards, mask, ids, jnp.array([0]), num_groups=1).round(3))
      [[ 0.  0. -1.  0.]]

    Source: GRPO, arXiv 2402.03300 section 4.1.3. Sums, not means: completions with more steps have larger advantages.
    """

    def of_group(reduce, x: Array) -> Array:
        return reduce(x, group_ids, num_segments=num_groups)[group_ids]

    rewards = jnp.where(step_mask, step_rewards.astype(jnp.float32), jnp.inf)
    # Relative to the group's lowest reward, so that equal rewards centre to exactly 0 (as in `group_advantages`).
    lowest = of_group(jax.ops.segment_min, jnp.min(rewards, axis=1))
    above = jnp.where(step_mask, rewards - lowest[:, None], 0)
    steps = of_group(jax.ops.segment_sum, jnp.sum(step_mask, axis=1, dtype=jnp.float32))
    mean = of_group(jax.ops.segment_sum, jnp.sum(above, axis=1)) / jnp.maximum(steps, 1)
    centred = jnp.where(step_mask, above - mean[:, None], 0)
    squares = of_group(jax.ops.segment_sum, jnp.sum(jnp.square(centred), axis=1))
    std = jnp.sqrt(squares / jnp.maximum(steps - ddof, 1))
    normalised = centred / (std + eps)[:, None]
    to_go = jnp.cumsum(normalised[:, ::-1], axis=1)[:, ::-1]
    of_token = jnp.take_along_axis(to_go, jnp.maximum(step_ids, 0), axis=1)
    return jax.lax.stop_gradient(jnp.where(step_ids >= 0, of_token, 0))
