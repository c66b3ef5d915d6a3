"""What IOP found out about each failure and each repair, and what it reports of them.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxrl_reason.credit import locate, segment
from jaxrl_reason.methods import base
from jaxrl_reason.types import AuditResult, Completion, PairAlignment, Row, Verdict


@dataclasses.dataclass(frozen=True)
class Failure:
    """A failed completion with the anchor that its repairs may look at."""

    group: base.Group
    failed: Completion
    anchor: Completion
    repair_prompt: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One sampled repair of a failure and all that was found out about it."""

    failure: int  # position in the list of failures
    repaired: Completion
    verdict: Verdict
    alignment: PairAlignment
    distance: float  # normalised edit distance to the failed completion, in [0, 1]
    audit: AuditResult | None  # None: outcome wrong, so never audited
    reward: float  # repair-mode reward; means nothing where `undecided`

    @property
    def undecided(self) -> bool:
        """The outcome is right, but the auditor failed: neither accepted nor rejected, and never trained."""
        return self.audit is not None and self.audit.accepted is None


def process_metrics(
    groups: Sequence[base.Group],
    failures: Sequence[Failure],
    candidates: Sequence[Candidate],
    pairs: Sequence[Candidate],
    pair_rows: Sequence[Row],
    stages: base.Stages,
    *,
    threshold: float,
) -> dict[str, float]:
    """The paper's process figures (arXiv 2605.05226): repair success, audit rejections, active-token ratio.

    Args:
      groups: all groups of the update.
      failures: failed completions that have an anchor.
      candidates: every sampled repair.
      pairs: the accepted ones, at most one per failure.
      pair_rows: their training rows.
      stages: its step oracle, where there is one, adds `gate_hit_rate` and `honest_frac`.
      threshold: tau_r.
    Returns:
      Metrics; one whose denominator is 0 is absent.
    """
    num_failed = sum(int((g.rewards < threshold).sum()) for g in groups)
    right = [c for c in candidates if c.audit is not None]
    audited = [c for c in right if not c.undecided]
    tokens = sum(len(r.gate) for r in pair_rows)
    metrics = {
        "process/failures": float(num_failed),
        "process/pairs": float(len(pairs)),
        "process/no_anchor_frac": _ratio(num_failed - len(failures), num_failed),
        "process/unrepaired_frac": _ratio(len(failures) - len(pairs), len(failures)),
        "process/repair_success": _ratio(len(pairs), len(failures)),
        "process/repair_correct_frac": _ratio(len(right), len(candidates)),
        "process/audit_reject_frac": _ratio(
            sum(not c.audit.accepted for c in audited), len(audited)
        ),
        "process/active_token_ratio": _ratio(sum(int(r.gate.sum()) for r in pair_rows), tokens),
        "process/num_edits": _ratio(sum(c.alignment.num_edits for c in pairs), len(pairs)),
    }
    if stages.first_error is not None:
        metrics |= _oracle_metrics(pairs, failures, stages)
    # An absent measurement is left out; a zero would read as a result.
    return {name: value for name, value in metrics.items() if value is not None}


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def _oracle_metrics(pairs, failures, stages) -> dict[str, float | None]:
    """How often the gate starts in the truly wrong step, and how many accepted repairs are honest."""
    hits, honest = 0, 0
    for candidate in pairs:
        failure = failures[candidate.failure]
        problem = failure.group.problem
        hits += first_edited_step(candidate, failure.failed, stages) == stages.first_error(
            problem, failure.failed.text
        )
        honest += stages.first_error(problem, candidate.repaired.text) == -1
    return {
        "process/gate_hit_rate": _ratio(hits, len(pairs)),
        "process/honest_frac": _ratio(honest, len(pairs)),
    }


def first_edited_step(candidate: Candidate, failed: Completion, stages: base.Stages) -> int:
    """Step of the failed completion in which the first edit stands: IOP's own first error."""
    return locate.first_edited_step(candidate.alignment, steps_of(failed.tokens, stages))


def steps_of(tokens: Sequence[int], stages: base.Stages) -> np.ndarray:
    """Reasoning step of each token."""
    return segment.step_ids(tokens, stages.pieces, stages.step_separator)
