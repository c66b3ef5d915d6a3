"""GRPO with process supervision: a reward for every step, normalised over the group and summed to the end.

Host side. Reads: nothing. Writes: nothing. Source: arXiv 2402.03300 section 4.1.3.

The paper takes step rewards from a process reward model. Here they come from the first error that `config.locate`
finds: 1 for the steps before it, 0 from it on, 1 for all steps of a correct completion.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.algos import process
from jaxrl_reason.methods import base, first_errors, frame

_advantages = jax.jit(process.step_advantages, static_argnames=("num_groups", "ddof", "eps"))


class GrpoProcess(first_errors.Located):
    """Every completion is a row; its steps decide the advantages of its tokens."""

    def credit(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> frame.Credit:
        """Sum over the steps that are still to end."""
        found = first_errors.find(self.config, groups, stages)
        completions = base.completions(groups)
        # A step has at least one token, so that as many columns hold the steps of any completion.
        step_ids, _ = frame.padded(found.step_ids, self.completion_tokens, fill=-1)
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
        spread = frame.unpadded(advantages, completions)
        return frame.Credit(spread, found.metrics)
