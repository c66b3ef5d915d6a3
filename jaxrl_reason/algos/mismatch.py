"""Weights that correct for a sampler whose probabilities are not the trainer's: truncated importance sampling, IcePop.

Device side, jit-safe. Reads: log-probs of the same tokens by both. Writes: nothing.

Tokens are drawn by the sampler (other kernels, another precision, weights a moment old), while the loss takes them for
the trainer's. The weight pi_trainer / pi_sampler, both before the update, is a constant for the gradient: it multiplies
the advantages, so that a loss needs to know nothing of it. A `LEVELS` function makes ratios, a `CORRECTIONS` function
makes weights of them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_reason.ops import masked

# As in the loss: far outside of all bounds, and its square still fits float32.
MAX_LOG_RATIO = 20.0


def _log_ratio(trainer: Array, sampler: Array, mask: Array) -> Array:
    return jnp.where(mask, trainer.astype(jnp.float32) - sampler.astype(jnp.float32), 0)


def token_ratios(
    trainer: Float[Array, "B T"], sampler: Float[Array, "B T"], mask: Bool[Array, "B T"]
) -> Float[Array, "B T"]:
    """Ratio of each token: exp(log pi_trainer - log pi_sampler), the exponent within +-20.

    Args:
      trainer: log-probs recomputed before the update, nats; ignored outside mask.
      sampler: log-probs that the tokens were drawn with; ignored outside mask.
      mask: sampled tokens.
    Returns:
      float32, without gradient; 1 outside mask.
    Example:
      >>> trainer, sampler = jnp.log(jnp.array([[0.5, 0.2]])), jnp.log(jnp.array([[0.25, 0.4]]))
      >>> print(token_ratios(trainer, sampler, jnp.ones((1, 2), bool)).round(4))
      [[2.  0.5]]
    """
    log_ratio = _log_ratio(trainer, sampler, mask)
    return jax.lax.stop_gradient(jnp.exp(jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)))


def sequence_ratios(
    trainer: Float[Array, "B T"], sampler: Float[Array, "B T"], mask: Bool[Array, "B T"]
) -> Float[Array, "B T"]:
    """Ratio of each completion, the same in all of its tokens: exp(sum_t log pi_trainer - log pi_sampler).

    Args and returns: as `token_ratios`.

    Example:
      >>> trainer, sampler = jnp.log(jnp.array([[0.5, 0.1]])), jnp.log(jnp.array([[0.25, 0.4]]))
      >>> print(sequence_ratios(trainer, sampler, jnp.ones((1, 2), bool)).round(4))
      [[0.5 0.5]]
    """
    total = jnp.sum(_log_ratio(trainer, sampler, mask), axis=1, keepdims=True)
    ratio = jnp.exp(jnp.clip(total, -MAX_LOG_RATIO, MAX_LOG_RATIO))
    return jax.lax.stop_gradient(jnp.where(mask, ratio, 1.0))


LEVELS = {"token": token_ratios, "sequence": sequence_ratios}


def truncated(ratios: Float[Array, "B T"], *, low: float, high: float) -> Float[Array, "B T"]:
    """Truncated importance sampling: min(ratio, high).

    Args:
      ratios: from a function of LEVELS.
      low: not read: small weights do no harm.
      high: the cap C, >= 1.
    Returns:
      float32 weights.
    Example:
      >>> print(truncated(jnp.array([[0.1, 1.0, 7.0]]), low=0.5, high=5.0))
      [[0.1 1.  5. ]]

    Source: F. Yao et al., "Your efficient RL framework secretly brings you off-policy RL training", 2025.
    """
    del low
    return jnp.minimum(ratios, high)


def kept_within(ratios: Float[Array, "B T"], *, low: float, high: float) -> Float[Array, "B T"]:
    """IcePop: the ratio where low <= ratio <= high, else 0; the loss's denominators stay as they are.

    Args:
      ratios: from a function of LEVELS.
      low: alpha, in [0, 1].
      high: beta, >= 1.
    Returns:
      float32 weights.
    Example:
      >>> print(kept_within(jnp.array([[0.1, 1.0, 7.0]]), low=0.5, high=5.0))
      [[0. 1. 0.]]

    Source: Ring-1T, arXiv 2510.18855 (IcePop), token level.
    """
    return jnp.where((ratios >= low) & (ratios <= high), ratios, 0)


CORRECTIONS = {"tis": truncated, "icepop": kept_within}


def statistics(
    ratios: Float[Array, "B T"], weights: Float[Array, "B T"], mask: Bool[Array, "B T"]
) -> dict[str, Float[Array, ""]]:
    """How far the sampler is from the trainer, before anything was cut, and how much was.

    Args:
      ratios: before the correction.
      weights: after it.
      mask: sampled tokens, at least one.
    Returns:
      `ratio_mean`, `ratio_min`, `ratio_max` of the raw ratios; `effective_frac`: (sum w)^2 / (n sum w^2), the share of
      tokens that would weigh as much with equal weights; `cut_frac`: tokens whose weight is not their ratio.
    Example:
      >>> ratios = jnp.array([[3.0, 0.0, 0.0]])
      >>> print(statistics(ratios, ratios, jnp.ones((1, 3), bool))["effective_frac"].round(4))
      0.3333
    """
    squares = masked.masked_mean(jnp.square(ratios), mask)
    mean = masked.masked_mean(ratios, mask)
    return {
        "ratio_mean": mean,
        "ratio_min": jnp.min(jnp.where(mask, ratios, jnp.inf)),
        "ratio_max": jnp.max(jnp.where(mask, ratios, 0)),
        "effective_frac": jnp.square(mean) / jnp.maximum(squares, 1e-30),
        "cut_frac": masked.masked_mean(weights != ratios, mask),
    }
