"""RTS: the share of a completion's steps before its first error, through a sigmoid, is its reward in GRPO.

Host side. Reads: nothing. Writes: nothing. Source: the baseline of that name in VPPO, arXiv 2601.18984.

    R = sigmoid(slope * (good steps / steps - offset)) -> advantage within the group

There a large model finds the first error; here it is the locator of `config.locate`. The sigmoid's slope and offset are
not known to us.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxrl_reason.methods import base, first_errors, frame, outcome


class Rts(first_errors.Located):
    """One scalar per completion, from how far it is right."""

    def credit(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> frame.Credit:
        """The squashed shares, compared within the group."""
        found = first_errors.find(self.config, groups, stages)
        settings = self.config.rts
        distance = settings.slope * (first_errors.good_fraction(found) - settings.offset)
        rewards = (1 / (1 + np.exp(-distance))).astype(np.float32)
        scalars = outcome.scalar_advantages(self.config, groups, rewards)
        metrics = found.metrics | {"reward/rts_mean": float(rewards.mean())}
        return frame.Credit(frame.spread(scalars, base.completions(groups)), metrics)
