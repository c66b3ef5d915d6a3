"""What IOP shows of an update: for the rollout viewer, cases of every outcome, the rare ones too.

Host side. Reads: nothing. Writes: nothing.

| status | kind | what it is |
| --- | --- | --- |
| `accepted` | pair | a failure with the repair that is trained |
| `surplus` | pair | a repair that was accepted, too, but is not the best of its failure |
| `rejected` | pair | a repair with a right outcome that the audit found dishonest |
| `undecided` | pair | such a repair on which the auditor gave no verdict |
| `unrepaired` | pair | a failure none of whose repairs has a right outcome, with the nearest of them |
| `no_anchor` | completion | a failure that nothing could repair: no right sample in its group |
| `right` | completion | a completion that is right, and trains nothing |
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_reason.methods import base, iop_records
from jaxrl_reason.methods.iop_records import Candidate, Failure
from jaxrl_reason.types import Completion
from jaxrl_reason.verify import step_rules

STATUSES = ("accepted", "surplus", "rejected", "undecided", "unrepaired", "no_anchor", "right")


class Credit(NamedTuple):
    """What training does with the two sides of a pair; failed before repaired."""

    gates: tuple[np.ndarray, np.ndarray]  # [length] bool
    advantages: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Case:
    """One completion or pair, and what became of it."""

    status: str  # one of STATUSES
    reason: str
    group: base.Group
    completion: Completion
    reward: float
    candidate: Candidate | None = None
    anchor: Completion | None = None
    credit: Credit | None = None  # None: nothing of it is trained under the policy prompt


def cases(
    groups: Sequence[base.Group],
    failures: Sequence[Failure],
    candidates: Sequence[Candidate],
    credits: Mapping[int, Credit],
    negatives: Mapping[int, float],
    *,
    threshold: float,
) -> Iterator[Case]:
    """Every case of an update.

    Args:
      groups: of the update.
      failures: failed completions that have an anchor.
      candidates: every sampled repair.
      credits: of the accepted ones that are trained, by position in `candidates`.
      negatives: advantage of failures that are trained whole, by position in `failures`.
      threshold: tau_r.
    Yields:
      Cases, in no order that a reader should see; `records` puts them in one.
    """
    failed_only: dict[int, list[int]] = collections.defaultdict(list)
    for k, candidate in enumerate(candidates):
        failure = failures[candidate.failure]
        if candidate.audit is None:
            failed_only[candidate.failure].append(k)
            continue
        status = "rejected"
        if candidate.undecided:
            status = "undecided"
        elif candidate.audit.accepted:
            status = "accepted" if k in credits else "surplus"
        credit = credits.get(k) or _whole(failure, candidate, negatives)
        yield _pair_case(failure, candidate, status, candidate.audit.reason, credit)
    settled = {c.failure for c in candidates if c.audit is not None}
    for i, own in failed_only.items():
        if i not in settled:
            nearest = min((candidates[k] for k in own), key=lambda c: c.distance)
            credit = _whole(failures[i], nearest, negatives)
            yield _pair_case(failures[i], nearest, "unrepaired", nearest.verdict.reason, credit)
    anchored = {id(failure.group) for failure in failures}
    for group in groups:
        for completion, verdict in zip(group.completions, group.verdicts, strict=True):
            if verdict.reward >= threshold:
                status = "right"
            elif id(group) not in anchored:
                status = "no_anchor"
            else:
                continue
            yield Case(status, verdict.reason, group, completion, verdict.reward)


def _whole(failure: Failure, candidate: Candidate, negatives: Mapping[int, float]) -> Credit | None:
    """Credit of a failure that is trained as a negative, every token of it; None where it is not."""
    if candidate.failure not in negatives:
        return None
    gates = (
        np.ones(len(failure.failed.tokens), bool),
        np.zeros(len(candidate.repaired.tokens), bool),
    )
    return Credit(gates, (negatives[candidate.failure], 0.0))


def _pair_case(
    failure: Failure, candidate: Candidate, status: str, reason: str, credit: Credit | None
) -> Case:
    return Case(
        status, reason, failure.group, failure.failed, 0.0, candidate, failure.anchor, credit
    )


def records(
    found: Iterator[Case] | Sequence[Case], stages: base.Stages, *, limit: int
) -> list[dict[str, Any]]:
    """Records of at most `limit` cases: each status in turn, each of them from one group after the other.

    Args:
      found: all cases.
      stages: tokens to text, and the step oracle where there is one.
      limit: most records.
    Returns:
      Records, which a cut at any length leaves as even as it can be.
    """
    by_status: dict[str, list[tuple[int, int, Case]]] = {status: [] for status in STATUSES}
    seen: collections.Counter = collections.Counter()
    for number, case in enumerate(found):
        turn = seen[case.status, id(case.group)]
        seen[case.status, id(case.group)] += 1
        by_status[case.status].append((turn, number, case))
    queues = [sorted(queue, key=lambda entry: entry[:2]) for queue in by_status.values()]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    chosen = itertools.islice((entry for entry in turns if entry is not None), limit)
    return [_record(case, stages) for _, _, case in chosen]


def _record(case: Case, stages: base.Stages) -> dict[str, Any]:
    problem, candidate = case.group.problem, case.candidate
    record = {
        "kind": "pair" if candidate else "completion",
        "status": case.status,
        "reason": case.reason,
        "problem": problem.prompt,
        "gold": problem.answer,
        "separator": step_rules.shown(stages.step_separator),
        "failed": _side(case, 0, case.completion, stages),
        "repaired": candidate and _side(case, 1, candidate.repaired, stages),
        "anchor": case.anchor and case.anchor.text,
        "audit": candidate and candidate.audit and dataclasses.asdict(candidate.audit),
        "reward_failed": case.reward,
        "reward_repaired": candidate and candidate.verdict.reward,
        "oracle_first_error": None,
        "repaired_first_error": None,
        "gate_first_step": None,
    }
    if stages.first_error is not None:
        record["oracle_first_error"] = stages.first_error(problem, case.completion.text)
        if candidate:
            record["repaired_first_error"] = stages.first_error(problem, candidate.repaired.text)
    if case.status == "accepted":
        record["gate_first_step"] = iop_records.first_edited_step(
            candidate, case.completion, stages
        )
    return record


def _side(case: Case, which: int, completion: Completion, stages: base.Stages) -> dict[str, Any]:
    """One completion with its credit; edits are those of the pair."""
    gate, advantage, edits = np.zeros(len(completion.tokens), bool), 0.0, None
    if case.credit is not None:
        gate, advantage = case.credit.gates[which], case.credit.advantages[which]
    if case.candidate is not None:
        pair = case.candidate.alignment
        edits = (pair.failed_edit_ids, pair.repaired_edit_ids)[which]
    steps = iop_records.steps_of(completion.tokens, stages)
    return base.side(completion, stages, steps, gate=gate, advantages=gate * advantage, edits=edits)
