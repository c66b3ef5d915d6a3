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
from jaxrl_reason.methods import base, frame


class Outcome(frame.Completions):
    """Every completion is a row; its group decides its advantage."""

    def gives_signal(self, group: base.Group) -> bool:
        """Equal rewards give zero advantage: DAPO samples further prompts instead."""
        return self.config.advantage.kind == "raw" or bool(np.ptp(group.rewards) > 0)

    def credit(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> frame.Credit:
        """One advantage for all tokens of a completion."""
        return frame.Credit(frame.spread(self._advantages(groups), base.completions(groups)))

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
    trained = [int(frame.trained_tokens(config, c).sum()) for c in base.completions(groups)]
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
