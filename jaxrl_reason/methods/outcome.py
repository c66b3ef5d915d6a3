"""GRPO, Dr. GRPO, DAPO, GSPO, RLOO and REINFORCE++: one verdict per completion, one advantage for all of its tokens.

Host side. Reads: nothing. Writes: nothing.

They share these rows and differ in switches: advantage kind, whitening, ratio level, aggregation, clip, refill and
overlong shaping (`config.recipe`).

Sources: GRPO arXiv 2402.03300 eq. 3; Dr. GRPO 2503.20783 eq. 3; DAPO 2503.14476 eq. 8-13; GSPO 2507.18071 eq. 5-7;
RLOO 2402.14740 section 3; REINFORCE++ 2501.03262, plain (the reward itself) and with the group mean as baseline.
We differ: population std by default (`advantage.ddof`), and groups of equal rewards have advantage exactly 0. RLOO and
plain REINFORCE++ take the KL to the reference off the reward; here `loss.kl_coef` adds its k2 estimate to the loss,
whose gradient on the policy's own samples is in expectation the same.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxrl_reason.algos import advantages as algos_advantages
from jaxrl_reason.credit import segment
from jaxrl_reason.methods import base
from jaxrl_reason.types import Completion, Row


class Outcome:
    """Every completion is a row; its group decides its advantage."""

    def __init__(self, config: ml_collections.ConfigDict, *, completion_tokens: int):
        self.config = config
        self.completion_tokens = completion_tokens

    def gives_signal(self, group: base.Group) -> bool:
        """Equal rewards give zero advantage: DAPO samples further prompts instead."""
        return self.config.advantage.kind == "raw" or bool(np.ptp(group.rewards) > 0)

    def max_rows(self, num_prompts: int, group_size: int) -> int:
        return num_prompts * group_size

    def build(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> base.Built:
        """Rows of all groups, in order; truncated completions get no loss under `overlong.filter`."""
        if not groups:
            return base.Built([], {}, [])
        scalars = self._advantages(groups)
        spread = [
            np.full(len(c.tokens), advantage, np.float32)
            for c, advantage in zip(base.completions(groups), scalars, strict=True)
        ]
        rows = completion_rows(self.config, groups, spread, stages)
        return base.Built(rows, {}, completion_records(groups, spread, stages))

    def _advantages(self, groups: Sequence[base.Group]) -> np.ndarray:
        rewards = np.concatenate([g.rewards for g in groups])
        cache = self.config.overlong.penalty_tokens
        if cache:
            lengths = [len(c.tokens) for g in groups for c in g.completions]
            penalty = algos_advantages.overlong_penalty(
                jnp.asarray(lengths), max_tokens=self.completion_tokens, penalty_tokens=cache
            )
            # DAPO's rewards are -1 and +1; only beside the penalty does that scale matter.
            rewards = 2 * rewards - 1 + np.asarray(penalty)
        return scalar_advantages(self.config, groups, rewards)


def scalar_advantages(
    config: ml_collections.ConfigDict, groups: Sequence[base.Group], rewards: np.ndarray
) -> np.ndarray:
    """[B] float32: one advantage per completion, by `config.advantage`.

    Args:
      config: `advantage.*` and `overlong.filter` are read.
      groups: groups of the update, at least one.
      rewards: [B] float32, in the order of their completions.
    Returns:
      Advantages within the group (`kind`), then whitened over the batch (`whiten`).
    """
    settings = config.advantage
    if settings.kind != "raw":
        advantages = _advantages_fn(settings.kind, len(groups), settings.ddof, settings.eps)
        ids = jnp.asarray(base.group_ids(groups))
        rewards = np.asarray(advantages(jnp.asarray(rewards), ids))
    if settings.whiten == "none":
        return rewards
    trained = [int(trained_tokens(config, c).sum()) for c in base.completions(groups)]
    weights = np.asarray(trained if settings.whiten == "tokens" else np.minimum(trained, 1))
    whitened = algos_advantages.whiten(
        jnp.asarray(rewards), jnp.asarray(weights), ddof=settings.ddof, eps=settings.eps
    )
    return np.asarray(whitened)


@functools.cache
def _advantages_fn(kind: str, num_groups: int, ddof: int, eps: float):
    return functools.partial(
        algos_advantages.group_advantages, kind=kind, num_groups=num_groups, ddof=ddof, eps=eps
    )


def trained_tokens(config: ml_collections.ConfigDict, completion: Completion) -> np.ndarray:
    """[length] bool: all tokens, or none of a truncated completion under `overlong.filter`."""
    trained = not (config.overlong.filter and completion.truncated)
    return np.full(len(completion.tokens), trained)


def completion_rows(
    config: ml_collections.ConfigDict,
    groups: Sequence[base.Group],
    advantages: Sequence[np.ndarray],
    stages: base.Stages,
    *,
    gates: Sequence[np.ndarray] | None = None,
) -> list[Row]:
    """One row per sampled completion, in order.

    Args:
      config: `overlong.filter` and `loss.old_logprobs` are read.
      groups: groups of the update.
      advantages: per completion [length] float32.
      stages: scores the completions.
      gates: per completion [length] bool, tokens with loss; None: all of them. Truncated completions get none under
        `overlong.filter`.
    Returns:
      As many rows as there are completions.
    """
    completions = base.completions(groups)
    prompts = [g.prompt for g in groups for _ in g.completions]
    old = old_logprobs(config, stages, prompts, completions)
    trained = [trained_tokens(config, c) for c in completions]
    if gates is not None:
        trained = [t & gate for t, gate in zip(trained, gates, strict=True)]
    columns = (prompts, completions, trained, advantages, old)
    return [
        Row(prompt, c.tokens, gate=gate, advantages=advantage, old_logprobs=logprobs)
        for prompt, c, gate, advantage, logprobs in zip(*columns, strict=True)
    ]


def completion_records(
    groups: Sequence[base.Group], advantages: Sequence[np.ndarray], stages: base.Stages
) -> list[dict]:
    """Viewer records of the first completion of each group: breadth over problems."""
    records, offset = [], 0
    for group in groups:
        records.append(
            completion_record(
                group, group.completions[0], group.verdicts[0], advantages[offset], stages
            )
        )
        offset += len(group.completions)
    return records


def old_logprobs(
    config: ml_collections.ConfigDict,
    stages: base.Stages,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Completion],
) -> list[np.ndarray]:
    """Log-probs that the ratio divides by: the trainer's own, or the sampler's where the config says so."""
    if config.loss.old_logprobs == "behavior":
        return [c.logprobs for c in completions]
    return stages.score(prompts, [c.tokens for c in completions])


def completion_record(
    group: base.Group, completion: Completion, verdict, advantages: np.ndarray, stages: base.Stages
) -> dict:
    """Viewer record of a single completion; `advantages` [length]."""
    length = len(completion.tokens)
    steps = segment.step_ids(completion.tokens, stages.pieces, stages.step_separator)
    first_error = None
    if stages.first_error is not None:
        first_error = stages.first_error(group.problem, completion.text)
    return {
        "kind": "completion",
        "problem": group.problem.prompt,
        "gold": group.problem.answer,
        "separator": stages.step_separator,
        "failed": base.side(
            completion,
            stages,
            steps,
            gate=np.ones(length),
            advantages=advantages,
        ),
        "repaired": None,
        "anchor": None,
        "audit": None,
        "reward_failed": verdict.reward,
        "reward_repaired": None,
        "oracle_first_error": first_error,
        "gate_first_step": None,
    }
