"""The frame of the methods whose rows are the sampled completions: a method says what credit their tokens get.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxrl_reason.algos import advantages as algos_advantages
from jaxrl_reason.algos import mismatch
from jaxrl_reason.credit import segment
from jaxrl_reason.methods import base
from jaxrl_reason.types import Completion, Row, TrainState, Verdict
from jaxrl_reason.verify import step_rules


@dataclasses.dataclass(frozen=True)
class Credit:
    """What a method says about every completion of an update, in order."""

    advantages: Sequence[np.ndarray]  # per completion [length] float32
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    gates: Sequence[np.ndarray] | None = None  # per completion [length] bool; None: all tokens
    companion: TrainState | None = None


class Completions:
    """Every sampled completion is a row; a subclass has `gives_signal` and `credit`."""

    companion: str | None = None  # the second model that it trains: prm, critic or none

    def __init__(self, config: ml_collections.ConfigDict, *, completion_tokens: int):
        self.config = config
        self.completion_tokens = completion_tokens

    def max_rows(self, num_prompts: int, group_size: int) -> int:
        return num_prompts * group_size

    def credit(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> Credit:
        """Advantages of the completions of all groups, at least one."""
        raise NotImplementedError

    def build(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> base.Built:
        """Rows of all groups, in order; truncated completions get no loss under `overlong.filter`."""
        if not groups:
            return base.Built([], {}, [], stages.companion and stages.companion.state)
        credit = self.credit(groups, stages, rng)
        rows = completion_rows(self.config, groups, credit.advantages, gates=credit.gates)
        metrics = credit.metrics
        if self.config.loss.mismatch != "none":
            rows, found = correct_mismatch(
                self.config, rows, base.completions(groups), stages, width=self.completion_tokens
            )
            metrics = metrics | found
        records = completion_records(groups, rows, stages)
        return base.Built(rows, metrics, records, credit.companion)


def spread(values: np.ndarray, completions: Sequence[Completion]) -> list[np.ndarray]:
    """One figure per completion, given to all of its tokens."""
    return [
        np.full(len(c.tokens), value, np.float32)
        for c, value in zip(completions, values, strict=True)
    ]


def padded(
    values: Sequence[np.ndarray], width: int, fill: float | int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """([B, width] values, [B, width] bool mask) of one array per completion; one shape for all updates."""
    out = np.full((len(values), width), fill, values[0].dtype)
    mask = np.zeros(out.shape, bool)
    for i, value in enumerate(values):
        out[i, : len(value)] = value
        mask[i, : len(value)] = True
    return out, mask


def unpadded(values: np.ndarray | jax.Array, completions: Sequence[Completion]) -> list[np.ndarray]:
    """Rows of a [B, width] array without their padding, float32."""
    return [
        np.asarray(row[: len(c.tokens)], np.float32)
        for row, c in zip(np.asarray(values), completions, strict=True)
    ]


def whiten_tokens(
    config: ml_collections.ConfigDict, advantages: np.ndarray | jax.Array, mask: np.ndarray
) -> np.ndarray:
    """[B, width] advantages with mean 0 and std 1 over all tokens of the mask; 0 elsewhere."""
    settings = config.advantage
    whitened = algos_advantages.whiten(
        jnp.ravel(jnp.asarray(advantages)),
        jnp.ravel(jnp.asarray(mask, jnp.float32)),
        ddof=settings.ddof,
        eps=settings.eps,
    )
    return np.asarray(whitened).reshape(mask.shape)


def trained_tokens(config: ml_collections.ConfigDict, completion: Completion) -> np.ndarray:
    """[length] bool: all tokens, or none of a truncated completion under `overlong.filter`."""
    trained = not (config.overlong.filter and completion.truncated)
    return np.full(len(completion.tokens), trained)


def completion_rows(
    config: ml_collections.ConfigDict,
    groups: Sequence[base.Group],
    advantages: Sequence[np.ndarray],
    *,
    gates: Sequence[np.ndarray] | None = None,
) -> list[Row]:
    """One row per sampled completion, in order.

    Args:
      config: `overlong.filter` and `loss.old_logprobs` are read.
      groups: groups of the update.
      advantages: per completion [length] float32.
      gates: per completion [length] bool, tokens with loss; None: all of them. Truncated completions get none under
        `overlong.filter`.
    Returns:
      As many rows as there are completions.
    """
    completions = base.completions(groups)
    prompts = [g.prompt for g in groups for _ in g.completions]
    old = old_logprobs(config, completions)
    trained = [trained_tokens(config, c) for c in completions]
    if gates is not None:
        trained = [t & gate for t, gate in zip(trained, gates, strict=True)]
    columns = (prompts, completions, trained, advantages, old)
    return [
        Row(prompt, c.tokens, gate=gate, advantages=advantage, old_logprobs=logprobs)
        for prompt, c, gate, advantage, logprobs in zip(*columns, strict=True)
    ]


def correct_mismatch(
    config: ml_collections.ConfigDict,
    rows: Sequence[Row],
    completions: Sequence[Completion],
    stages: base.Stages,
    *,
    width: int,
) -> tuple[list[Row], dict[str, float]]:
    """Rows whose advantages are weighed by trainer over sampler probability, by `loss.mismatch`.

    Args:
      config: `loss.mismatch*` are read; `loss.mismatch` is not none.
      rows: one per completion.
      completions: what each row was made of; their log-probs are the sampler's.
      stages: scores the rows, for the trainer's log-probs.
      width: most tokens of a completion.
    Returns:
      (rows, `mismatch/*` metrics of the raw ratios and of what was cut).
    """
    scored = stages.score([row.prompt for row in rows], [row.completion for row in rows])
    trainer, mask = padded(scored, width)
    sampler, _ = padded([c.logprobs for c in completions], width)
    settings = config.loss
    ratios = mismatch.LEVELS[settings.mismatch_level](
        jnp.asarray(trainer), jnp.asarray(sampler), jnp.asarray(mask)
    )
    weights = mismatch.CORRECTIONS[settings.mismatch](
        ratios, low=settings.mismatch_low, high=settings.mismatch_high
    )
    found = mismatch.statistics(ratios, weights, jnp.asarray(mask))
    weighed = [
        dataclasses.replace(row, advantages=row.advantages * weight)
        for row, weight in zip(rows, unpadded(weights, completions), strict=True)
    ]
    return weighed, {f"mismatch/{name}": float(value) for name, value in found.items()}


def completion_records(
    groups: Sequence[base.Group], rows: Sequence[Row], stages: base.Stages
) -> list[dict]:
    """Viewer records of the first completion of each group: breadth over problems. `rows`: of all completions."""
    records, offset = [], 0
    for group in groups:
        completion, verdict = group.completions[0], group.verdicts[0]
        records.append(completion_record(group, completion, verdict, rows[offset], stages))
        offset += len(group.completions)
    return records


def old_logprobs(
    config: ml_collections.ConfigDict, completions: Sequence[Completion]
) -> list[np.ndarray | None]:
    """`Row.old_logprobs`: None, the trainer's own, or the sampler's where `loss.old_logprobs` says so."""
    behavior = config.loss.old_logprobs == "behavior"
    return [c.logprobs if behavior else None for c in completions]


def completion_record(
    group: base.Group, completion: Completion, verdict: Verdict, row: Row, stages: base.Stages
) -> dict:
    """Viewer record of a single completion, with the gate and the advantages of its row."""
    steps = segment.step_ids(completion.tokens, stages.pieces, stages.step_separator)
    first_error = None
    if stages.first_error is not None:
        first_error = stages.first_error(group.problem, completion.text)
    return {
        "kind": "completion",
        "problem": group.problem.prompt,
        "gold": group.problem.answer,
        "separator": step_rules.shown(stages.step_separator),
        "failed": base.side(
            completion,
            stages,
            steps,
            gate=row.gate,
            advantages=row.advantages,
        ),
        "repaired": None,
        "anchor": None,
        "audit": None,
        "reward_failed": verdict.reward,
        "reward_repaired": None,
        "oracle_first_error": first_error,
        "gate_first_step": None,
    }
