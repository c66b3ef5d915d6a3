"""PRIME: a reward model that learns from outcomes alone, while the policy learns, pays every token.

Host side. Reads: nothing. Writes: nothing. Source: arXiv 2502.01456, algorithm 1, equations 3, 5 and 6.

    groups of middling accuracy -> log-probs of the reference -> the reward model is updated on the outcomes ->
    implicit rewards beta (log phi - log ref) by the updated model -> leave-one-out returns of rewards and of outcomes

The reward model (`companions`) and the reference both start from the policy. It is updated before its rewards are used,
so that they are of the policy's own completions and never out of date.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from jaxrl_reason.algos import implicit
from jaxrl_reason.methods import base, frame
from jaxrl_reason.types import Row

_advantages = jax.jit(
    implicit.prime_advantages,
    static_argnames=("num_groups", "gamma", "implicit_coef", "outcome_coef"),
)


class Prime(frame.Completions):
    """Every completion is a row; implicit rewards and outcomes decide the advantages of its tokens."""

    companion = "prm"

    def gives_signal(self, group: base.Group) -> bool:
        """Its accuracy is neither too low nor too high; the bounds count as in between."""
        settings = self.config.prime
        # In float64: the float32 mean of 4 in 5 is more than 0.8.
        accuracy = group.rewards.mean(dtype=np.float64)
        return bool(settings.min_accuracy <= accuracy <= settings.max_accuracy)

    def credit(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> frame.Credit:
        """The reward model's update, then the advantages of its rewards and of the outcomes."""
        settings = self.config.prime
        completions = base.completions(groups)
        tokens = [c.tokens for c in completions]
        prompts = [g.prompt for g in groups for _ in g.completions]
        outcomes = np.concatenate([g.rewards for g in groups])
        reference = stages.reference(prompts, tokens)
        labels = frame.spread(outcomes, completions)
        everywhere = [np.ones(len(t), bool) for t in tokens]
        rows = [
            Row(*row) for row in zip(prompts, tokens, everywhere, labels, reference, strict=True)
        ]
        prm, metrics = stages.companion.train(rows, rng)
        rewards = [
            settings.beta * (phi - ref)
            for phi, ref in zip(prm.predict(prompts, tokens), reference, strict=True)
        ]
        padded, mask = frame.padded(rewards, self.completion_tokens)
        advantages = _advantages(
            padded,
            outcomes,
            mask,
            base.group_ids(groups),
            num_groups=len(groups),
            gamma=settings.gamma,
            implicit_coef=settings.implicit_coef,
            outcome_coef=settings.outcome_coef,
        )
        if self.config.advantage.whiten == "tokens":
            advantages = frame.whiten_tokens(self.config, advantages, mask)
        totals = np.array([r.sum() for r in rewards])
        metrics |= _separation(totals, outcomes)
        credited = frame.unpadded(advantages, completions)
        return frame.Credit(credited, metrics, companion=prm.state)


def _separation(totals: np.ndarray, outcomes: np.ndarray) -> dict[str, float]:
    """Mean implicit reward of right and of wrong completions."""
    right = outcomes > 0.5
    means = {}
    if right.any():
        means["process/implicit_reward_right"] = float(totals[right].mean())
    if not right.all():
        means["process/implicit_reward_wrong"] = float(totals[~right].mean())
    return means
