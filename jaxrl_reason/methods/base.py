"""What a method gets and what it gives: from judged groups of completions to training rows.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxrl_reason.types import (
    AlignFn,
    Companion,
    Completion,
    CriticFn,
    Problem,
    Row,
    SampleFn,
    ScoreFn,
    StepRewardsFn,
    TrainState,
    Verdict,
    VerifyFn,
)


@dataclasses.dataclass(frozen=True)
class Stages:
    """The functions that a method may call; bound to the current parameters and the update's key."""

    sample: SampleFn
    score: ScoreFn
    verify: VerifyFn
    align: AlignFn
    policy_prompt: Callable[[Problem], tuple[int, ...]]  # tokens, BOS included
    repair_prompt: Callable[[Problem, Completion, Completion], tuple[int, ...]]  # failed, anchor
    encode: Callable[[str], tuple[int, ...]]  # text of a completion to tokens, EOS included
    decode: Callable[[Sequence[int]], str]  # tokens of a completion to text
    pieces: Callable[[Sequence[int]], list[str]]  # decoded text of each token
    first_error: Callable[[Problem, str], int] | None  # step oracle, for metrics and `replay`
    answer_marker: str
    step_separator: str
    reference: ScoreFn | None = None  # log-probs under the policy that the run started from
    companion: Companion | None = None  # the second model, for methods that say which they need
    step_rewards: StepRewardsFn | None = None  # process reward model, where `config.locate` has one
    critic: CriticFn | None = None  # likewise


@dataclasses.dataclass(frozen=True)
class Group:
    """The G completions of one problem, with their verdicts."""

    problem: Problem
    prompt: tuple[int, ...]
    completions: tuple[Completion, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def rewards(self) -> np.ndarray:
        """[G] float32 in [0, 1]."""
        return np.array([v.reward for v in self.verdicts], np.float32)


@dataclasses.dataclass(frozen=True)
class Built:
    """What a method makes of the groups of one update."""

    rows: list[Row]
    metrics: dict[str, float]
    records: list[dict[str, Any]]  # for the rollout viewer
    companion: TrainState | None = None  # state of the second model after this update


@runtime_checkable
class Method(Protocol):
    """A recipe: which rows, which tokens, which advantage, which weight."""

    def gives_signal(self, group: Group) -> bool:
        """False where the group cannot train anything, so that further prompts may replace it."""
        ...

    def max_rows(self, num_prompts: int, group_size: int) -> int:
        """Most rows that `build` returns for so many groups; the TrainBatch always has this size."""
        ...

    def build(self, groups: Sequence[Group], stages: Stages, rng: np.random.Generator) -> Built: ...


def judge(
    verify: VerifyFn, problems: Sequence[Problem], completions: Sequence[Completion]
) -> list[Verdict]:
    """Verdicts of completions; one that ran out of budget is `truncated`, whatever its text says."""
    verdicts = verify(problems, [c.text for c in completions])
    return [
        dataclasses.replace(v, reward=0.0, reason="truncated") if c.truncated else v
        for v, c in zip(verdicts, completions, strict=True)
    ]


def completions(groups: Sequence[Group]) -> list[Completion]:
    """Completions of all groups, in order."""
    return [c for group in groups for c in group.completions]


def group_ids(groups: Sequence[Group]) -> np.ndarray:
    """[B] int32: number of the group of each completion."""
    sizes = [len(group.completions) for group in groups]
    return np.repeat(np.arange(len(groups), dtype=np.int32), sizes)


def side(
    completion: Completion,
    stages: Stages,
    step_ids: np.ndarray,
    *,
    gate: np.ndarray,
    advantages: np.ndarray,
    edits: np.ndarray | None = None,
) -> dict[str, Any]:
    """One completion of a viewer record: tokens with their credit."""
    edits = np.full(len(completion.tokens), -1) if edits is None else edits
    return {
        "tokens": stages.pieces(completion.tokens),
        "gate": [int(g) for g in gate],
        "edit": [int(e) for e in edits],
        "advantage": [round(float(a), 4) for a in advantages],
        "logprob": [round(float(p), 4) for p in completion.logprobs],
        "step": [int(s) for s in step_ids],
    }
