"""Mixed: the mean reward of the steps is mixed into the outcome, and GRPO does the rest.

Host side. Reads: nothing. Writes: nothing. Source: the baseline of that name in VPPO, arXiv 2601.18984.

    R = share * mean_m r(step m) + (1 - share) * outcome -> advantage within the group

As in `grpo_process`, step rewards come from the first error that `config.locate` finds: 1 before it, 0 from it on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxrl_reason.methods import base, first_errors, frame, outcome


class Mixed(first_errors.Located):
    """One scalar per completion, from its steps and its outcome."""

    def credit(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> frame.Credit:
        """The mixed rewards, compared within the group."""
        found = first_errors.find(self.config, groups, stages)
        share = self.config.mixed.process_share
        outcomes = np.concatenate([group.rewards for group in groups])
        rewards = share * first_errors.good_fraction(found) + (1 - share) * outcomes
        scalars = outcome.scalar_advantages(self.config, groups, rewards.astype(np.float32))
        metrics = found.metrics | {"reward/mixed_mean": float(rewards.mean())}
        return frame.Credit(frame.spread(scalars, base.completions(groups)), metrics)
