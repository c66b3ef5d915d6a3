"""Cliff: GRPO whose wrong completions are penalised from their first error on, centred over tokens.

Host side. Reads: nothing. Writes: nothing. Source: arXiv 2609.02817. VPPO's twin for a loss that averages over tokens.

The paper's locator is a teacher that must solve the problem itself; here it is the one that `config.locate` names. As
there, an unknown first error leaves GRPO's penalty on the whole completion, and so does an over-long completion.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.algos import process
from jaxrl_reason.methods import base, first_errors, frame

_advantages = jax.jit(process.cliff_advantages, static_argnames=("num_groups", "prefix_scale"))


class Cliff(frame.Completions):
    """Every completion is a row; groups with equal outcomes have advantage 0."""

    def gives_signal(self, group: base.Group) -> bool:
        """Right and wrong completions in one group."""
        correct = group.rewards >= self.config.locate.threshold
        return bool(correct.any() and not correct.all())

    def credit(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> frame.Credit:
        """GRPO's advantage, and that of the prefix before the first error."""
        found = first_errors.find(self.config, groups, stages)
        completions = base.completions(groups)
        over_long = np.array([c.truncated for c in completions])
        before_error = np.where(over_long, 0, found.good_tokens)
        mask, prefix = first_errors.masks(completions, before_error, self.completion_tokens)
        advantages = _advantages(
            jnp.asarray(found.correct),
            jnp.asarray(prefix),
            jnp.asarray(mask),
            jnp.asarray(base.group_ids(groups)),
            num_groups=len(groups),
            prefix_scale=self.config.cliff.prefix_scale,
        )
        spread = frame.unpadded(advantages, completions)
        return frame.Credit(spread, found.metrics)
