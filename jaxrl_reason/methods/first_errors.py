"""First errors of the wrong completions of an update: what VPPO, Cliff and process-supervised GRPO share.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from jaxrl_reason.credit import locate, locators, segment
from jaxrl_reason.methods import base, frame
from jaxrl_reason.types import Completion


class Located(frame.Completions):
    """Every completion is a row; the steps of the wrong ones are told apart by their first error."""

    def gives_signal(self, group: base.Group) -> bool:
        """Wrong completions may differ in their steps, also where all are wrong; right ones are all alike."""
        return bool((group.rewards < self.config.locate.threshold).any())


class FirstErrors(NamedTuple):
    """One entry per completion of the update, B in all; correct ones are never sent to the locator."""

    correct: np.ndarray  # [B] bool
    good_steps: (
        np.ndarray
    )  # [B] int: steps before the first error; all of a correct completion, 0 where unknown
    good_tokens: np.ndarray  # [B] int: tokens before it, likewise
    step_ids: list[np.ndarray]  # per completion [length] int
    metrics: dict[str, float]


def find(
    config: ml_collections.ConfigDict, groups: Sequence[base.Group], stages: base.Stages
) -> FirstErrors:
    """Locate the first error of every wrong completion, by `config.locate`.

    Where no step was found wrong, `locate.no_error` says which is: the last one, or none is to be credited. An unknown
    first error never gives credit.

    Args:
      config: its `locate` part is read.
      groups: judged groups of the update.
      stages: functions of the locator.
    Returns:
      FirstErrors, with `process/*` metrics.
    """
    settings = config.locate
    completions = base.completions(groups)
    problems = [g.problem for g in groups for _ in g.completions]
    rewards = np.concatenate([g.rewards for g in groups]) if groups else np.zeros(0)
    correct = rewards >= settings.threshold
    step_ids = [
        segment.step_ids(c.tokens, stages.pieces, stages.step_separator) for c in completions
    ]
    by_tokens = {c.tokens: ids for c, ids in zip(completions, step_ids, strict=True)}
    wrong = np.flatnonzero(~correct)
    own = [completions[i] for i in wrong]
    anchors = _anchors(groups, settings.threshold)
    locator = locators.make_locator(
        settings, tools(stages, lambda tokens: by_tokens[tuple(tokens)])
    )
    located = locator([problems[i] for i in wrong], own, [anchors[i] for i in wrong])
    good_steps = np.array([int(ids[-1]) + 1 if len(ids) else 0 for ids in step_ids], int)
    good_tokens = np.array([len(c.tokens) for c in completions], int)
    for i, step, token in zip(wrong, *located.first_error, strict=True):
        if step == locate.NONE and settings.no_error == "last":
            step = good_steps[i] - 1
            token = locate.first_token(completions[i], step_ids[i], int(step))
        # A missing step is charged to the last one: no wrong completion has credit in all of its steps.
        good_steps[i] = np.clip(step, 0, max(good_steps[i] - 1, 0))
        good_tokens[i] = max(token, 0)
    metrics = _metrics(located, own, stages, [problems[i] for i in wrong])
    return FirstErrors(correct, good_steps, good_tokens, step_ids, metrics)


def tools(stages: base.Stages, step_ids_fn: locate.StepIdsFn) -> locators.Tools:
    """The functions of an update, as locators call them."""
    return locators.Tools(
        step_ids_fn=step_ids_fn,
        decode=stages.decode,
        separator=stages.step_separator,
        first_error=stages.first_error,
        sample_fn=stages.sample,
        verify_fn=stages.verify,
        align_fn=stages.align,
        encode_prompt=stages.policy_prompt,
        repair_prompt=stages.repair_prompt,
        step_rewards=stages.step_rewards,
        critic=stages.critic,
    )


def _anchors(groups: Sequence[base.Group], threshold: float) -> list[Completion | None]:
    """For each completion of the update the first right one of its group."""
    anchors: list[Completion | None] = []
    for group in groups:
        right = np.flatnonzero(group.rewards >= threshold)
        anchor = group.completions[right[0]] if len(right) else None
        anchors += [anchor] * len(group.completions)
    return anchors


def _metrics(
    located: locate.Located, wrong: Sequence[Completion], stages: base.Stages, problems
) -> dict[str, float]:
    """Where errors are, what finding them cost and, where there is an oracle, how well they were found."""
    if not wrong:
        return {"process/locate_generations": 0.0, "process/locate_tokens": 0.0}
    steps, tokens = located.first_error
    known = steps >= 0
    metrics = {
        "process/locate_generations": float(located.generations.sum()),
        "process/locate_tokens": float(located.tokens.sum()),
        "process/locate_unknown_frac": float(np.mean(steps == locate.UNKNOWN)),
        "process/locate_none_frac": float(np.mean(steps == locate.NONE)),
    }
    if known.any():
        lengths = np.array([len(c.tokens) for c in wrong])
        metrics["process/first_error_step"] = float(steps[known].mean())
        metrics["process/prefix_frac"] = float(
            np.mean(tokens[known] / np.maximum(lengths[known], 1))
        )
    if stages.first_error is not None:
        truth = np.array(
            [stages.first_error(p, c.text) for p, c in zip(problems, wrong, strict=True)]
        )
        # An error put too late rewards wrong steps: the harmful kind.
        metrics["process/locate_match_frac"] = float(np.mean(steps == truth))
        metrics["process/locate_earlier_frac"] = float(np.mean(known & (steps < truth)))
        metrics["process/locate_later_frac"] = float(np.mean(known & (steps > truth)))
    return metrics


def masks(
    completions: Sequence[Completion], good_tokens: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """[B, width] bool: tokens of each completion, and the first `good_tokens` of them; one shape for all updates."""
    columns = np.arange(width)[None, :]
    lengths = np.array([len(c.tokens) for c in completions], int)[:, None]
    return columns < lengths, columns < good_tokens[:, None]


def good_fraction(found: FirstErrors) -> np.ndarray:
    """[B] float: share of each completion's steps that lie before its first error; 1 where it is correct."""
    steps = np.array([int(ids[-1]) + 1 if len(ids) else 0 for ids in found.step_ids])
    return np.where(found.correct, 1.0, found.good_steps / np.maximum(steps, 1))
