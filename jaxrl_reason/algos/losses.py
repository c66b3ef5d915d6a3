"""The one policy-gradient loss of every method: shift, row coefficients, ratio, clip, KL, entropy.

Device side, jit-safe. Reads: a TrainBatch and log-probs of its tokens. Writes: nothing.

A method speaks only through the TrainBatch (which rows, which tokens, what advantage and weight); nothing here knows a
method. Everything returned is a sum whose denominator was fixed before the batch was split, so that adding up
microbatches is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_reason.ops import logprob, masked
from jaxrl_reason.types import NUM_STREAMS, TrainBatch

# e^20 = 5e8 is far outside every clip interval, and its square still fits float32; e^89 does not.
MAX_TOKEN_LOG_RATIO = 20.0
MAX_SEQUENCE_LOG_RATIO = 10.0

STREAM_NAMES = ("policy", "repair")  # metric prefixes, by stream number

MetricSums = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]


def shifted_targets(tokens: Int[Array, "B T"]) -> Int[Array, "B T-1"]:
    """What each position but the last predicts: targets[:, t] = tokens[:, t + 1]. The only shift there is.

    Example:
      >>> print(shifted_targets(jnp.array([[5, 6, 7]])))
      [[6 7]]
    """
    return tokens[:, 1:]


def completion_logprobs(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    tokens: Int[Array, "B T"],
    *,
    temperature: float | int = 1.0,
    vocab_chunk: int = 4096,
    first_column: int = 1,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Log-prob and entropy of every token given those before it; column t speaks about `tokens[:, t]`.

    Args:
      hidden: final hidden states of `tokens`, float32 or bfloat16.
      head: output projection.
      tokens: ids in [0, V), padding included.
      temperature: > 0, divides the logits; the one that sampled the tokens.
      vocab_chunk: most vocabulary columns held at once.
      first_column: columns before it are not computed, static, >= 1: the prompt width P saves P - 1 projections a row.
    Returns:
      (logprobs, entropy), nats, float32. 0 in columns before `first_column`: nothing predicts column 0.
    Raises:
      ValueError: first_column outside [1, T].
    Example:
      >>> logprobs, _ = completion_logprobs(jnp.zeros((1, 3, 2)), jnp.zeros((4, 2)), jnp.array([[1, 2, 3]]))
      >>> print(logprobs.round(4))
      [[ 0.     -1.3863 -1.3863]]
    """
    if not 1 <= first_column <= tokens.shape[1]:
        raise ValueError(
            f"first_column = {first_column}: must be in [1, {tokens.shape[1]}], since nothing predicts column 0"
        )
    logprobs, entropy = logprob.token_logprobs(
        hidden[:, first_column - 1 : -1],
        head,
        shifted_targets(tokens)[:, first_column - 1 :],
        temperature=temperature,
        vocab_chunk=vocab_chunk,
    )
    columns = ((0, 0), (first_column, 0))
    return jnp.pad(logprobs, columns), jnp.pad(entropy, columns)


def _mean_of_means(rows: Array, tokens: Array, row_tokens: Array, max_completion: int) -> Array:
    del tokens, max_completion
    return rows * row_tokens


def _mean_of_tokens(rows: Array, tokens: Array, row_tokens: Array, max_completion: int) -> Array:
    del rows, row_tokens, max_completion
    return tokens


def _mean_of_sums(rows: Array, tokens: Array, row_tokens: Array, max_completion: int) -> Array:
    del tokens, row_tokens
    return rows * max_completion


# (live rows of the stream, their tokens, tokens of the row, L_const) -> denominator of the row's tokens.
AGGREGATIONS = {
    "seq_mean_token_mean": _mean_of_means,
    "token_mean": _mean_of_tokens,
    "seq_sum_over_const": _mean_of_sums,
}


def live_rows(batch: TrainBatch) -> Bool[Array, " B"]:
    """Rows that may contribute: a weight other than 0 and at least one loss token."""
    return (batch.row_weight != 0) & jnp.any(batch.loss_mask, axis=1)


def row_coefficients(
    batch: TrainBatch, *, aggregation: str, max_completion: int
) -> Float[Array, "B T"]:
    """Weight c of each token in the loss, fixed over the whole batch before any split.

    With m = loss_mask, w = row_weight and, for the row's stream s, R_s live rows holding M_s loss tokens:
    seq_mean_token_mean w m / (R_s sum_t m), token_mean w m / M_s, seq_sum_over_const w m / (R_s max_completion).
    The weight comes after the normalisation, which each stream has for itself, so that a weight of lambda_rep on repair
    rows means lambda_rep whatever the number of either kind.

    Args:
      batch: rows with weight 0 or without loss tokens are padding: they count in no denominator.
      aggregation: a key of AGGREGATIONS.
      max_completion: L_const, tokens; read by seq_sum_over_const only.
    Returns:
      float32, 0 outside loss_mask and on padding rows.
    Raises:
      ValueError: an unknown aggregation.
    Example:
      >>> mask, row, grid = jnp.array([[True, True], [False, True]]), jnp.ones(2), jnp.zeros((2, 2))
      >>> ids = jnp.zeros((2, 2), int)
      >>> batch = TrainBatch(ids, mask, mask, grid, grid, None, row, ids[:, 0], row)
      >>> print(row_coefficients(batch, aggregation="seq_mean_token_mean", max_completion=2))
      [[0.25 0.25]
       [0.   0.5 ]]

    Source: GRPO arXiv 2402.03300 equation 3, DAPO 2503.14476 equation 8, Dr. GRPO 2503.20783; differs: streams.
    """
    denominator = _choose(AGGREGATIONS, aggregation, "aggregation")
    live = live_rows(batch)
    weight = jnp.where(live, batch.row_weight.astype(jnp.float32), 0)
    row_tokens = jnp.sum(batch.loss_mask, axis=1, dtype=jnp.float32)
    of_stream = (batch.stream[:, None] == jnp.arange(NUM_STREAMS)[None, :]) & live[:, None]
    rows = jnp.sum(of_stream, axis=0, dtype=jnp.float32)[batch.stream]
    tokens = masked.masked_sum(
        jnp.broadcast_to(row_tokens[:, None], of_stream.shape), of_stream, axis=0
    )[batch.stream]
    scale = weight / jnp.maximum(denominator(rows, tokens, row_tokens, max_completion), 1)
    return jnp.where(batch.loss_mask, scale[:, None], 0)


def token_ratio(log_ratio: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B T"]:
    """Importance ratio of each token: exp(clip(log pi - log pi_old, -20, 20)).

    Args:
      log_ratio: nats, 0 where mask is False.
      mask: tokens that may contribute.
    Returns:
      float32, 1 where mask is False.
    Example:
      >>> print(token_ratio(jnp.log(jnp.array([[1.5, 1.0]])), jnp.array([[True, False]])))
      [[1.5 1. ]]

    Source: PPO, arXiv 1707.06347 equation 6; the clamp as in verl.
    """
    del mask
    return jnp.exp(jnp.clip(log_ratio, -MAX_TOKEN_LOG_RATIO, MAX_TOKEN_LOG_RATIO))


def sequence_ratio(log_ratio: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B T"]:
    """Length-normalised ratio of each row: exp(sum_t m_t log_ratio_t / sum_t m_t), the same in every column.

    Over a completion mask this is GSPO's ratio; over IOP's gate it is the gated ratio.

    Args:
      log_ratio: nats, 0 where mask is False.
      mask: tokens that may contribute; a row without any has ratio 1.
    Returns:
      float32.
    Example:
      >>> log_ratio, gate = jnp.array([[0.01, -0.02, 0.03, 0.0]]), jnp.array([[False, True, True, False]])
      >>> print(sequence_ratio(jnp.where(gate, log_ratio, 0), gate)[0, 0])
      1.0050125

    Source: GSPO arXiv 2507.18071 equation 7, IOP arXiv 2605.05226; the upper clamp of the exponent, 10, as in verl.
    """
    mean = jnp.minimum(masked.masked_mean(log_ratio, mask, axis=1), MAX_SEQUENCE_LOG_RATIO)
    return jnp.broadcast_to(jnp.exp(mean)[:, None], log_ratio.shape)


RATIOS = {"token": token_ratio, "sequence": sequence_ratio}


def kl_k1(log_ratio: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """KL estimate d with d = log pi - log pi_ref. Unbiased as a number; as a loss its mean gradient is 0."""
    return log_ratio


def kl_k2(log_ratio: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """KL estimate d^2 / 2: biased as a number, and as a loss on-policy its gradient is that of the KL."""
    return 0.5 * jnp.square(log_ratio)


def kl_k3(log_ratio: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """KL estimate exp(-d) - 1 + d: unbiased and never negative."""
    log_ratio = jnp.clip(log_ratio, -MAX_TOKEN_LOG_RATIO, MAX_TOKEN_LOG_RATIO)
    return jnp.expm1(-log_ratio) + log_ratio


# By their usual names: J. Schulman, "Approximating KL divergence", 2020.
KL_ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def _choose(table: Mapping[str, Any], name: str, field: str) -> Any:
    if name not in table:
        raise ValueError(f"{field} = {name!r}: must be one of {', '.join(table)}")
    return table[name]


def _masked_difference(logprobs: Array, constant: Array, mask: Array) -> Array:
    difference = logprobs.astype(jnp.float32) - jax.lax.stop_gradient(constant).astype(jnp.float32)
    return jnp.where(mask, difference, 0)


def _old_logprobs(logprobs: Array, batch: TrainBatch) -> Array:
    if batch.on_policy is None:
        return batch.old_logprobs
    return jnp.where(batch.on_policy[:, None], logprobs, batch.old_logprobs)


def policy_loss(
    logprobs: Float[Array, "B T"],
    entropy: Float[Array, "B T"],
    batch: TrainBatch,
    coefficients: Float[Array, "B T"],
    *,
    ratio: str,
    clip_low: float,
    clip_high: float,
    dual_clip: float = 0.0,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
    entropy_coef: float = 0.0,
) -> tuple[Float[Array, ""], MetricSums]:
    """Clipped surrogate, to be minimised: -sum_nt c (min(rho A, clip(rho, 1 - lo, 1 + hi) A) - beta KL + eta H).

    Args:
      logprobs: under the parameters that are differentiated; ignored outside loss_mask, even NaN.
      entropy: of the distributions the tokens were drawn from, nats; ignored outside loss_mask.
      batch: `clip_scale` multiplies both clip widths of its row; `on_policy` rows divide by stop_gradient(logprobs)
        instead of `old_logprobs`; `ref_logprobs` None: no KL.
      coefficients: from `row_coefficients` of the WHOLE batch, the rows of this part.
      ratio: a key of RATIOS.
      clip_low: ratios of tokens with a negative advantage stop counting below 1 - clip_low.
      clip_high: ratios of tokens with a positive advantage stop counting above 1 + clip_high.
      dual_clip: ratios of tokens with a negative advantage stop counting above it, > 1; 0: off.
      kl_coef: beta, of the KL to the reference policy.
      kl_estimator: a key of KL_ESTIMATORS.
      entropy_coef: eta, of the bonus.
    Returns:
      (loss, metrics): the loss is a sum, since its denominators are in `coefficients`; metrics are (numerator,
      denominator) pairs over tokens of live rows, per stream, to be added up with `add_metrics`.
    Raises:
      ValueError: an unknown ratio or estimator.
    Example:
      >>> mask, row, grid = jnp.array([[True, True]]), jnp.ones(1), jnp.zeros((1, 2))
      >>> ids = jnp.zeros((1, 2), int)
      >>> batch = TrainBatch(ids, mask, mask, grid + 1, grid, None, row, ids[:, 0], row)
      >>> logprobs = jnp.log(jnp.array([[1.5, 0.5]]))  # ratios, since old_logprobs are 0; kept: 1.25 and 0.5
      >>> kwargs = dict(ratio="token", clip_low=0.25, clip_high=0.25)
      >>> loss, _ = policy_loss(logprobs, grid, batch, grid + 0.5, **kwargs)
      >>> print(f"{loss:.4f}")
      -0.8750

    Source: PPO arXiv 1707.06347 equation 7; GSPO 2507.18071 equation 5; dual clip 1912.09729 equation 5.
      Differs: with `sequence` and advantages that vary within a row, the row's ratio multiplies every one of them.
    """
    mask = batch.loss_mask
    # Masked before exp: e^89 * 0 would be NaN in the gradient.
    log_ratio = _masked_difference(logprobs, _old_logprobs(logprobs, batch), mask)
    rho = _choose(RATIOS, ratio, "ratio")(log_ratio, mask)
    advantages = jnp.where(mask, jax.lax.stop_gradient(batch.advantages), 0).astype(rho.dtype)

    negative = advantages < 0
    low = 1 - clip_low * batch.clip_scale[:, None]
    high = 1 + clip_high * batch.clip_scale[:, None]
    # min(rho A, clip(rho) A) keeps rho up to `high` where A >= 0 and down to `low` where A < 0. Written with `where`,
    # its slope is 1 on the bound itself; minimum and clip would both halve it there.
    too_low, too_high = negative & (rho < low), ~negative & (rho > high)
    used = jnp.where(too_low, low, jnp.where(too_high, high, rho))
    if dual_clip:
        used = jnp.where(negative & (rho > dual_clip), dual_clip, used)
    objective = used * advantages
    if kl_coef and batch.ref_logprobs is not None:
        to_reference = _masked_difference(logprobs, batch.ref_logprobs, mask)
        objective -= kl_coef * _choose(KL_ESTIMATORS, kl_estimator, "kl_estimator")(to_reference)
    entropy = jnp.where(mask, entropy.astype(jnp.float32), 0)
    if entropy_coef:
        objective += entropy_coef * entropy

    per_token = {
        # Tokens come from the old policy: E_old[rho - 1 - log rho] = KL(old, new).
        "kl": kl_k3(-log_ratio),
        "entropy": entropy,
        "ratio_mean": rho,
        # A = 0 has no clipped side: it would count as clipped without any loss being cut.
        "clip_frac_low": too_low,
        "clip_frac_high": too_high & (advantages > 0),
    }
    loss = -jnp.sum(jnp.where(mask, coefficients * objective, 0))
    return loss, _metric_sums(batch, jax.lax.stop_gradient(per_token), rho)


def imitation_loss(
    logprobs: Float[Array, "B T"],
    entropy: Float[Array, "B T"],
    batch: TrainBatch,
    coefficients: Float[Array, "B T"],
) -> tuple[Float[Array, ""], MetricSums]:
    """Cross-entropy of supervised fine-tuning: -sum_nt c_nt A_nt log pi(token), A = 1 on demonstrations.

    Args:
      logprobs: under the parameters that are differentiated; ignored outside loss_mask.
      entropy: of the predictions, nats; a metric only.
      batch: `advantages` weigh the tokens; log-probs in it are not read.
      coefficients: from `row_coefficients` of the whole batch.
    Returns:
      (loss, metrics) as `policy_loss`: a sum, and (numerator, denominator) pairs.
    """
    mask = batch.loss_mask
    weighted = coefficients * batch.advantages * jnp.where(mask, logprobs, 0)
    live = mask & (batch.row_weight != 0)[:, None]
    tokens = jnp.sum(live, dtype=jnp.float32)
    sums = {"policy/entropy": (masked.masked_sum(jax.lax.stop_gradient(entropy), live), tokens)}
    return -jnp.sum(jnp.where(mask, weighted, 0)), sums


def _metric_sums(batch: TrainBatch, per_token: dict[str, Array], rho: Array) -> MetricSums:
    sums: MetricSums = {}
    live = batch.loss_mask & (batch.row_weight != 0)[:, None]
    for stream, name in enumerate(STREAM_NAMES):
        counts = live & (batch.stream == stream)[:, None]
        tokens = jnp.sum(counts, dtype=jnp.float32)
        for key, values in per_token.items():
            sums[f"{name}/{key}"] = (masked.masked_sum(values, counts), tokens)
        # Denominator 0: a total, not a mean.
        total = jnp.zeros_like(tokens)
        sums[f"{name}/ratio_max"] = (
            jnp.max(jnp.where(counts, jax.lax.stop_gradient(rho), 0), initial=0),
            total,
        )
        sums[f"{name}/tokens"] = (tokens, total)
    return sums


def add_metrics(a: MetricSums, b: MetricSums) -> MetricSums:
    """Metric sums of two parts together; under names that end in `_max`, the larger one."""
    sums = jax.tree.map(jnp.add, a, b)
    maxima = {
        name: jax.tree.map(jnp.maximum, a[name], b[name]) for name in a if name.endswith("_max")
    }
    return sums | maxima


def mean_metrics(sums: MetricSums) -> dict[str, Float[Array, ""]]:
    """Numerator over denominator of every metric; the numerator itself where the denominator is 0."""
    return {
        name: numerator / jnp.maximum(denominator, 1)
        for name, (numerator, denominator) in sums.items()
    }
