"""GRPO with process supervision: a reward for every step, normalised over the group and summed to the end.

Host side. Reads: nothing. Writes: nothing. Source: arXiv 2402.03300 section 4.1.3.

The paper takes step rewards from a process reward model. Here they come from the first error that `config.locate`
finds: 1 for the steps before it, 0 from it on, 1 for all steps of a correct completion.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxrl_reason.algos import process
from jaxrl_reason.methods import base, first_errors, outcome

_advantages = jax.jit(process.step_advantages, static_argnames=("num_groups", "ddof", "eps"))


class GrpoProcess:
    """Every completion is a row; its steps decide the advantages of its tokens."""

    def __init__(self, config: ml_collections.ConfigDict, *, completion_tokens: int):
        self.config = config
        self.completion_tokens = completion_tokens

    def gives_signal(self, group: base.Group) -> bool:
        """A wrong completion has a step with another reward than the rest; if all are right, none has."""
        return bool((group.rewards < self.config.locate.threshold).any())

    def max_rows(self, num_prompts: int, group_size: int) -> int:
        return num_prompts * group_size

    def build(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> base.Built:
        """Rows of all groups, in order."""
        if not groups:
            return base.Built([], {}, [])
        found = first_errors.find(self.config, groups, stages)
        completions = base.completions(groups)
        # A step has at least one token, so that as many columns hold the steps of any completion.
        step_ids = np.full((len(completions), self.completion_tokens), -1, np.int32)
        for row, ids in zip(step_ids, found.step_ids, strict=True):
            row[: len(ids)] = ids
        columns = np.arange(self.completion_tokens)[None, :]
        settings = self.config.advantage
        advantages = _advantages(
            jnp.asarray(columns < found.good_steps[:, None], jnp.float32),
            jnp.asarray(columns <= step_ids.max(axis=1, keepdims=True)),
            jnp.asarray(step_ids),
            jnp.asarray(base.group_ids(groups)),
            num_groups=len(groups),
            ddof=settings.ddof,
            eps=settings.eps,
        )
        spread = first_errors.rows_of(np.asarray(advantages), completions)
        rows = outcome.completion_rows(self.config, groups, spread, stages)
        return base.Built(rows, found.metrics, outcome.completion_records(groups, spread, stages))
