"""PPO: a critic says what each token was worth, generalised advantage estimates say how much better it came out.

Host side. Reads: nothing. Writes: nothing. Source: arXiv 1707.06347, advantages 1506.02438, dual clip 1912.09729.

    values before the update -> outcome at the last token -> GAE -> the critic learns the returns -> whitened advantages

The critic (`companions`) is a model of its own with its own optimizer, as in verl; it starts from the policy, with
value 0 everywhere. Returns are made of the advantages before the whitening. As in verl, a completion that ran out of
budget ends there with reward 0: nothing is bootstrapped.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from jaxrl_reason.algos import values as algos_values
from jaxrl_reason.methods import base, frame
from jaxrl_reason.types import Row

_gae = jax.jit(algos_values.gae, static_argnames=("gamma", "lam"))


class Ppo(frame.Completions):
    """Every completion is a row; the critic decides the advantages of its tokens."""

    companion = "critic"

    def gives_signal(self, group: base.Group) -> bool:
        """Every group: the critic is the baseline, not the group."""
        return True

    def credit(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> frame.Credit:
        """Advantages by the values of before the critic's update; then the critic is updated."""
        completions = base.completions(groups)
        tokens = [c.tokens for c in completions]
        prompts = [g.prompt for g in groups for _ in g.completions]
        old = stages.companion.predict(prompts, tokens)
        values, mask = frame.padded(old, self.completion_tokens)
        rewards = np.zeros_like(values)
        lengths = np.array([len(t) for t in tokens])
        rewards[np.arange(len(tokens)), lengths - 1] = np.concatenate([g.rewards for g in groups])
        settings = self.config.ppo
        advantages = np.asarray(_gae(rewards, values, mask, gamma=settings.gamma, lam=settings.lam))
        returns = frame.unpadded(advantages + values, completions)
        gates = [frame.trained_tokens(self.config, c) for c in completions]
        rows = [Row(*row) for row in zip(prompts, tokens, gates, returns, old, strict=True)]
        critic, metrics = stages.companion.train(rows, rng)
        metrics["critic/explained_variance"] = _explained(returns, old)
        if self.config.advantage.whiten == "tokens":
            trained, _ = frame.padded(gates, self.completion_tokens)
            advantages = frame.whiten_tokens(self.config, advantages, trained & mask)
        credited = frame.unpadded(advantages, completions)
        return frame.Credit(credited, metrics, companion=critic.state)


def _explained(returns: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> float:
    """1 - var(R - V) / var(R) over all tokens; 0 where all returns are equal."""
    target, value = np.concatenate(returns), np.concatenate(values)
    return float(1 - np.var(target - value) / np.var(target)) if np.var(target) > 0 else 0.0
