"""SRL: the policy writes the next step of an expert's solution and is paid by the similarity of the texts.

Host side. Reads: nothing. Writes: nothing. Source: arXiv 2510.25992 (eq. 3-5); problems come from `tasks.steps`.

    problem and the expert's first k - 1 steps -> (thoughts and) one step -> similarity to the expert's, -1 where the
    format is wrong -> groups of nearly equal rewards are replaced -> GRPO

Only the step is scored, never the thoughts; both are trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxrl_reason.credit import segment
from jaxrl_reason.methods import base, frame, outcome
from jaxrl_reason.types import Completion
from jaxrl_reason.verify import similarity

MALFORMED = -1.0


class Srl(frame.Completions):
    """Every completion is a row; its step decides its reward, its group the advantage."""

    def gives_signal(self, group: base.Group) -> bool:
        """Dynamic sampling: the population std of the rewards, -1 included, is above `srl.min_std`."""
        return bool(self._rewards(group).std() > self.config.srl.min_std)

    def credit(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> frame.Credit:
        """The similarity of each step, compared within the group."""
        rewards = np.concatenate([self._rewards(group) for group in groups])
        scalars = outcome.scalar_advantages(self.config, groups, rewards)
        completions = base.completions(groups)
        gates = [self._gate(c, stages) for c in completions]
        well_formed = rewards != MALFORMED
        metrics = {
            "reward/srl_mean": float(rewards.mean()),
            "reward/format_ok_frac": float(well_formed.mean()),
        }
        if well_formed.any():
            metrics["reward/similarity"] = float(rewards[well_formed].mean())
        return frame.Credit(frame.spread(scalars, completions), metrics, gates)

    def _rewards(self, group: base.Group) -> np.ndarray:
        """[G] float32: similarity in [0, 1], or -1."""
        separator = group.problem.meta["separator"] if self._stops else None
        rewards = []
        for completion in group.completions:
            step = similarity.written_step(
                completion.text, think=self.config.task.think, separator=separator
            )
            # Cut off by the budget before the step had ended.
            unfinished = completion.truncated and not (separator and separator in completion.text)
            if step is None or unfinished:
                rewards.append(MALFORMED)
            else:
                rewards.append(
                    similarity.similarity(
                        step, group.problem.answer, autojunk=self.config.srl.autojunk
                    )
                )
        return np.array(rewards, np.float32)

    @property
    def _stops(self) -> bool:
        return self.config.task.step_end == "separator"

    def _gate(self, completion: Completion, stages: base.Stages) -> np.ndarray:
        """All tokens, or those of the first step where what follows it is not looked at."""
        if not self._stops:
            return np.ones(len(completion.tokens), bool)
        return segment.step_ids(completion.tokens, stages.pieces, stages.step_separator) == 0
