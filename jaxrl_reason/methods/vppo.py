"""VPPO: find the first error, reward the good prefix, penalise the rest.

Host side. Reads: nothing. Writes: nothing. Source: arXiv 2601.18984, "Save the Good Prefix" (three papers have this
short name).

    wrong completions -> first errors -> good prefix, shortened by the length of the prompt -> token advantages

The paper's locator is a process reward model with a threshold; here it is the one that `config.locate` names. A reward
prefix that ends right before the error would be made longer by writing more steps; the shortening takes that away.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.algos import process
from jaxrl_reason.methods import base, first_errors, frame

_advantages = jax.jit(process.prefix_advantages, static_argnames=("num_groups", "alpha", "relu"))


class Vppo(first_errors.Located):
    """Every completion is a row; in wrong ones the tokens before the first error are rewarded."""

    def credit(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> frame.Credit:
        """1, alpha or 0 for every token, centred."""
        vppo = self.config.vppo
        found = first_errors.find(self.config, groups, stages)
        completions = base.completions(groups)
        rewarded = found.good_tokens
        if vppo.shorten == "prompt":
            prompts = [len(g.prompt) for g in groups for _ in g.completions]
            rewarded = np.maximum(rewarded - np.array(prompts), 0)
        mask, prefix = first_errors.masks(completions, rewarded, self.completion_tokens)
        advantages = _advantages(
            jnp.asarray(found.correct),
            jnp.asarray(prefix),
            jnp.asarray(mask),
            jnp.asarray(base.group_ids(groups)),
            num_groups=len(groups),
            alpha=vppo.alpha,
            relu=vppo.relu,
        )
        spread = frame.unpadded(advantages, completions)
        wrong = ~found.correct
        metrics = found.metrics | (
            {
                "process/rewarded_prefix_frac": float(
                    (prefix & mask)[wrong].sum() / mask[wrong].sum()
                )
            }
            if wrong.any()
            else {}
        )
        return frame.Credit(spread, metrics)
