"""Shared vocabulary: device pytrees, host records and the signature of every replaceable function.

Host and device. Reads: nothing. Writes: nothing.

Dimensions, used everywhere with these letters: N prompts per update, G samples per prompt (group size), B rows,
P prompt columns, C completion columns, T = P + C columns in all, S reasoning steps, V vocabulary, D model width.

Layout law: prompts are left-padded to P columns, completions start at column P in every row and are right-padded.
Column t of every [B, T] array speaks about `tokens[:, t]`; the shift by one between logits and tokens lives in
`algos.losses.shifted_targets` alone.

Device pytrees are NamedTuples of arrays, so that `tree.map`, `vmap`, `scan` and sharding trees work on them as they
are. Take rows with `take_rows(batch, rows)`: `batch[0]` is the first *field*.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

Params = Any

# Streams of a TrainBatch: each has its own denominator in the loss, so that a row weight keeps its meaning however
# many rows the other stream has.
POLICY_STREAM = 0
REPAIR_STREAM = 1
NUM_STREAMS = 2


class Rollout(NamedTuple):
    """What the sampler returns."""

    tokens: Int[Array, "B T"]  # token ids; pad id where token_mask is False
    token_mask: Bool[Array, "B T"]  # False on padding
    completion_mask: Bool[Array, "B T"]  # True where the policy chose the token, EOS included
    behavior_logprobs: Float[Array, "B T"]  # nats, under the sampling distribution; 0 elsewhere
    group_ids: Int[Array, " B"]  # rows with one id share one prompt
    truncated: Bool[Array, " B"]  # the budget ended before EOS


class StepSegments(NamedTuple):
    """Reasoning steps inside each completion."""

    step_ids: Int[Array, "B T"]  # 0..S-1, non-decreasing; -1 outside the completion
    step_mask: Bool[Array, "B S"]  # which steps exist


class FirstError(NamedTuple):
    """Where reasoning first goes wrong."""

    step: Int[Array, " B"]  # 0-indexed; -1: none, -2: unknown
    token: Int[Array, " B"]  # column of the first token of that step; same negative codes


class Alignment(NamedTuple):
    """Levenshtein alignment of failed and repaired completions, edits numbered from left to right."""

    failed_mask: Bool[Array, "B T"]  # failed tokens that were substituted or deleted
    repaired_mask: Bool[Array, "B T"]  # repaired tokens that were substituted or inserted
    num_edits: Int[Array, " B"]  # Levenshtein distance
    first_edit: Int[Array, " B"]  # failed-side column of the first edit; -1 where there is none
    failed_edit_ids: Int[
        Array, "B T"
    ]  # number of the edit that touches this failed token; -1: kept
    repaired_edit_ids: Int[
        Array, "B T"
    ]  # number of the edit that made this repaired token; -1: kept


class TrainBatch(NamedTuple):
    """All that the loss may see. Rows with row_weight 0 are padding."""

    tokens: Int[Array, "B T"]
    token_mask: Bool[Array, "B T"]
    loss_mask: Bool[Array, "B T"]  # the gate: tokens that may contribute
    advantages: Float[Array, "B T"]  # constants for the gradient
    old_logprobs: Float[
        Array, "B T"
    ]  # what the ratio divides by, under the row's own prompt; not read in rows that are `on_policy`
    ref_logprobs: Float[Array, "B T"] | None  # None: no KL term, nothing computed
    row_weight: Float[Array, " B"]
    stream: Int[Array, " B"]  # POLICY_STREAM or REPAIR_STREAM
    clip_scale: Float[Array, " B"]  # factor on both clip widths; 1 is the plain loss
    # Rows whose log-probs before the update are those that the update itself computes: their ratio is 1, whatever the
    # rounding of another program would make of it. None: no such row.
    on_policy: Bool[Array, " B"] | None = None


class TrainState(NamedTuple):
    """Everything that a checkpoint holds on the device: arrays only."""

    num_updates: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    key: Key[Array, ""]
    companion: Any = (
        None  # TrainState of a second model that the method trains; None: no such model
    )


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question.

    Example:
      >>> Problem(id="arithmetic-7-0", prompt="3 8 5 2", answer="8").answer
      '8'
    """

    id: str
    prompt: str  # the question itself, without any prompt format around it
    answer: str  # gold answer, as text
    reference: str | None = None  # a solution from the data set, where there is one
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Reason = Literal[
    "correct", "wrong", "unparsable", "timeout", "truncated",
    # Of programs alone: what stopped them.
    "error", "memory", "output", "network", "file", "process", "environment",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the outcome verifier says about one completion."""

    reward: float  # in [0, 1]
    answer: str | None  # extracted answer; None where there is none
    reason: Reason


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sampled completion on the host."""

    tokens: tuple[int, ...]  # EOS included where it was sampled; a given prefix included
    logprobs: np.ndarray  # [len(tokens)] float32, nats, behaviour; 0 on a given prefix
    text: str  # decoded, special tokens left out
    truncated: bool
    num_generated: int  # sampled tokens: len(tokens) less the given prefix


@dataclasses.dataclass(frozen=True)
class PairAlignment:
    """Row of `Alignment` on the host, without padding."""

    failed_edit_ids: np.ndarray  # [len(failed)] int; -1: kept
    repaired_edit_ids: np.ndarray  # [len(repaired)] int; -1: kept
    num_edits: int


@dataclasses.dataclass(frozen=True)
class Row:
    """One training row on the host; `rollout.batching.pack_rows` makes a TrainBatch of many."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    gate: np.ndarray  # [len(completion)] bool
    advantages: np.ndarray  # [len(completion)] float32
    # [len(completion)] float32, under `prompt`; None: those of the parameters that the update starts from
    old_logprobs: np.ndarray | None = None
    weight: float = 1.0
    stream: int = POLICY_STREAM
    clip_scale: float = 1.0


@runtime_checkable
class SampleFn(Protocol):
    """Sample completions of prompts with the current policy, on whatever devices it lives."""

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        stage: str,
        num_samples: int = 1,
        temperature: float = 1.0,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Completion]]:
        """`num_samples` completions per prompt; with `prefixes`, each completion extends its prompt's prefix.

        `stage` names the draw: same (seed, update, stage), same tokens.
        """
        ...


@runtime_checkable
class ScoreFn(Protocol):
    """Teacher-forced log-probs of completion tokens under the current policy."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> list[np.ndarray]: ...


@runtime_checkable
class Companion(Protocol):
    """A second model that a method trains beside the policy, bound to its state."""

    @property
    def state(self) -> TrainState:
        """What `Built.companion` carries back to the loop."""
        ...

    def predict(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> list[np.ndarray]:
        """[len(completion)] float32 each: log-probs of an implicit reward model, values of a critic."""
        ...

    def train(
        self, rows: Sequence[Row], rng: np.random.Generator
    ) -> tuple[Companion, dict[str, float]]:
        """One pass over the rows; their `advantages` are targets, their `old_logprobs` earlier predictions."""
        ...


VerifyFn = Callable[[Sequence[Problem], Sequence[str]], list[Verdict]]
AlignFn = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], list[PairAlignment]]


class StepRewards(NamedTuple):
    """What a process reward model says about the steps of B solutions, and what it read for that."""

    # per solution [<= its steps] float32, P(right so far); shorter where the rest did not fit
    rewards: list[np.ndarray]
    tokens: np.ndarray  # [B] int: tokens read, without padding


class CriticAnswers(NamedTuple):
    """Answers of a critic to B prompts, and what they cost."""

    texts: list[list[str]]  # per prompt k answers; none where the prompt did not fit
    tokens: np.ndarray  # [B] int: tokens written


# problems, and the texts of each solution's steps
StepRewardsFn = Callable[[Sequence[Problem], Sequence[Sequence[str]]], StepRewards]
CriticFn = Callable[[Sequence[str], int], CriticAnswers]  # prompts, k


@dataclasses.dataclass(frozen=True)
class AuditResult:
    """Verdict on the honesty of one repair, with the reason in a few words."""

    accepted: bool | None  # None: no verdict, since the auditor itself failed
    reason: str


@runtime_checkable
class Audit(Protocol):
    """Judge repairs whose outcome is already correct; one entry per case in every argument."""

    def __call__(
        self,
        problems: Sequence[Problem],
        failed: Sequence[Completion],
        anchors: Sequence[Completion],
        repaired: Sequence[Completion],
    ) -> list[AuditResult]: ...


def take_rows(batch: Any, rows: Any) -> Any:
    """Rows of every array in a pytree (`batch[0]` on a NamedTuple would be its first field)."""
    return jax.tree.map(lambda x: x[rows], batch)
