"""GRPO, Dr. GRPO, DAPO and GSPO: one verdict per completion, one advantage for all of its tokens.

Host side. Reads: nothing. Writes: nothing.

They share these rows and differ in switches: advantage kind, ratio level, aggregation, clip, refill and overlong
shaping (`config.recipe`).

Sources: GRPO arXiv 2402.03300 eq. 3; Dr. GRPO 2503.20783 eq. 3; DAPO 2503.14476 eq. 8-13; GSPO 2507.18071 eq. 5-7.
We differ: population std by default (`advantage.ddof`), and groups of equal rewards have advantage exactly 0.
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
        return bool(np.ptp(group.rewards) > 0)

    def max_rows(self, num_prompts: int, group_size: int) -> int:
        return num_prompts * group_size

    def build(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> base.Built:
        """Rows of all groups, in order; truncated completions get no loss under `overlong.filter`."""
        if not groups:
            return base.Built([], {}, [])
        prompts = [g.prompt for g in groups for _ in g.completions]
        completions = [c for g in groups for c in g.completions]
        scalars = self._advantages(groups)
        old = old_logprobs(self.config, stages, prompts, completions)
        rows = []
        for prompt, completion, advantage, logprobs in zip(
            prompts, completions, scalars, old, strict=True
        ):
            length = len(completion.tokens)
            trained = not (self.config.overlong.filter and completion.truncated)
            rows.append(
                Row(
                    prompt,
                    completion.tokens,
                    gate=np.full(length, trained),
                    advantages=np.full(length, advantage, np.float32),
                    old_logprobs=logprobs,
                )
            )
        return base.Built(rows, {}, self._records(groups, scalars, stages))

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
        ids = np.concatenate([np.full(len(g.completions), i) for i, g in enumerate(groups)])
        settings = self.config.advantage
        advantages = _advantages_fn(settings.kind, len(groups), settings.ddof, settings.eps)
        return np.asarray(advantages(jnp.asarray(rewards), jnp.asarray(ids)))

    def _records(self, groups, scalars, stages) -> list[dict]:
        records = []
        offset = 0
        for group in groups:
            # One completion per group: the viewer shows breadth over problems.
            completion, verdict = group.completions[0], group.verdicts[0]
            records.append(
                completion_record(group, completion, verdict, float(scalars[offset]), stages)
            )
            offset += len(group.completions)
        return records


@functools.cache
def _advantages_fn(kind: str, num_groups: int, ddof: int, eps: float):
    return functools.partial(
        algos_advantages.group_advantages, kind=kind, num_groups=num_groups, ddof=ddof, eps=eps
    )


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
    group: base.Group, completion: Completion, verdict, advantage: float, stages: base.Stages
) -> dict:
    """Viewer record of a single completion."""
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
            advantages=np.full(length, advantage),
        ),
        "repaired": None,
        "anchor": None,
        "audit": None,
        "reward_failed": verdict.reward,
        "reward_repaired": None,
        "oracle_first_error": first_error,
        "gate_first_step": None,
    }
