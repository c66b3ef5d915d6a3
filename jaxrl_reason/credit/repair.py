"""Repairs of failed completions: anchors, edit distance, scores, selection.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxrl_reason.types import AlignFn, Completion, PairAlignment

# What the elementwise formulas take: one value, or an array-like of them.
Values = bool | int | float | np.generic | np.ndarray | Sequence


def choose_anchors(
    failed: Sequence[Completion],
    correct: Sequence[Sequence[Completion]],
    *,
    kind: str,
    rng: np.random.Generator,
    align_fn: AlignFn | None = None,
) -> list[Completion]:
    """One correct completion of its own group for every failed one, to repair it by.

    Args:
      failed: n failed completions.
      correct: for each, the correct completions of its group, at least one.
      kind: "random": uniform, drawn in the order of `failed`; "nearest": smallest Levenshtein distance on token ids,
        the first one on ties.
      rng: used by "random" only.
      align_fn: used by "nearest" only; called once for all pairs.
    Returns:
      n completions.
    Raises:
      ValueError: unknown kind, a group without a correct completion, or "nearest" without `align_fn`.
    Source: IOP, arXiv 2605.05226; how the anchor is drawn is not stated there.
    """
    if len(failed) != len(correct):
        raise ValueError(f"{len(correct)} groups of anchors for {len(failed)} failed completions")
    empty = [i for i, group in enumerate(correct) if not group]
    if empty:
        raise ValueError(
            f"no correct completion to repair failure {empty[0]} by: leave such groups out first"
        )
    if kind == "random":
        return [group[int(rng.integers(len(group)))] for group in correct]
    if kind != "nearest":
        raise ValueError(f"anchor kind {kind!r}: must be random or nearest")
    if not failed:
        return []
    if align_fn is None:
        raise ValueError("anchor kind 'nearest': needs align_fn")
    owners = [i for i, group in enumerate(correct) for _ in group]
    pairs = align_fn(
        [failed[i].tokens for i in owners], [anchor.tokens for group in correct for anchor in group]
    )
    distances: list[list[int]] = [[] for _ in failed]
    for owner, pair in zip(owners, pairs, strict=True):
        distances[owner].append(pair.num_edits)
    return [group[int(np.argmin(row))] for group, row in zip(correct, distances, strict=True)]


def choose_anchor(
    failed: Completion,
    correct: Sequence[Completion],
    *,
    kind: str,
    rng: np.random.Generator,
    align_fn: AlignFn | None = None,
) -> Completion:
    """`choose_anchors` for one failed completion."""
    return choose_anchors([failed], [correct], kind=kind, rng=rng, align_fn=align_fn)[0]


def normalised_distance(num_edits: int, len_failed: int, len_repaired: int) -> float:
    """Edit distance as a share of the longer text: Lev / max(len) in [0, 1]; 0 where both are empty.

    Args:
      num_edits: Levenshtein distance, tokens.
      len_failed: tokens.
      len_repaired: tokens.
    Returns:
      A share in [0, 1].
    Raises:
      ValueError: more edits than the longer text has tokens.
    Example:
      >>> round(normalised_distance(4, 14, 14), 3)
      0.286

    Source: IOP, arXiv 2605.05226, normalised edit distance of the repair score; the normaliser is our choice.
    """
    longest = max(len_failed, len_repaired)
    if not 0 <= num_edits <= longest:
        raise ValueError(
            f"num_edits = {num_edits}: must be in [0, {longest}], the longer of the two lengths"
        )
    return num_edits / longest if longest else 0.0


def pair_distances(alignments: Sequence[PairAlignment]) -> np.ndarray:
    """`normalised_distance` of every pair.

    Args:
      alignments: n pairs; the lengths of both sides are those of their edit ids.
    Returns:
      [n] float64 in [0, 1].
    """
    return np.array(
        [
            normalised_distance(a.num_edits, len(a.failed_edit_ids), len(a.repaired_edit_ids))
            for a in alignments
        ],
        np.float64,
    )


def repair_score(
    audit_ok: Values, reward: Values, distance: Values, *, edit_cost: float
) -> np.ndarray:
    """Score of a repair: s = h (r - edit_cost * distance), elementwise.

    Args:
      audit_ok: bool, h.
      reward: task reward r of the repair, in [0, 1].
      distance: normalised edit distance to the failed completion, in [0, 1].
      edit_cost: lambda_edit in [0, 1); below 1 a right repair outranks every wrong one when rewards are 0 or 1.
    Returns:
      float64 of the common shape.
    Example:
      >>> print(repair_score([True, False], [1.0, 1.0], [0.25, 0.25], edit_cost=0.1))
      [0.975 0.   ]

    Source: IOP, arXiv 2605.05226, s_rep.
    """
    honest = np.asarray(audit_ok, bool)
    score = np.asarray(reward, np.float64) - edit_cost * np.asarray(distance, np.float64)
    return np.where(honest, score, 0.0)


def select_repairs(
    audit_ok: Values, rewards: Values, distances: Values, *, edit_cost: float, threshold: float
) -> np.ndarray:
    """Best acceptable candidate of each failed completion: argmax of s over those with h = 1 and r >= threshold.

    With rewards of 0 and 1 this is the argmax over all candidates, taken if it is acceptable. With graded rewards the
    two differ: a dishonest candidate (s = 0) or a nearly right one could outrank an acceptable one and throw it away.

    Args:
      audit_ok: [n, R] bool, h.
      rewards: [n, R] float in [0, 1].
      distances: [n, R] float in [0, 1].
      edit_cost: lambda_edit in [0, 1).
      threshold: tau_r in (0, 1]; a reward at or above it counts as correct.
    Returns:
      [n] int: number of the candidate, the first one on ties; -1 where none is acceptable.
    Example:
      >>> print(select_repairs([[True, True]], [[1.0, 1.0]], [[0.5, 0.25]], edit_cost=0.1, threshold=0.5))
      [1]

    Source: IOP, arXiv 2605.05226, argmax of s_rep; that an accepted repair must be right is our reading.
    """
    scores = repair_score(audit_ok, rewards, distances, edit_cost=edit_cost)
    if scores.ndim != 2:
        raise ValueError(
            f"candidates of shape {scores.shape}: must be [failed completions, repairs of each]"
        )
    acceptable = np.asarray(audit_ok, bool) & (np.asarray(rewards, np.float64) >= threshold)
    if not scores.size:
        return np.full(len(scores), -1)
    best = np.argmax(np.where(acceptable, scores, -np.inf), axis=1)
    return np.where(acceptable.any(axis=1), best, -1)


def select_repair(
    audit_ok: Values, rewards: Values, distances: Values, *, edit_cost: float, threshold: float
) -> int | None:
    """`select_repairs` for the [R] candidates of one failed completion; None where none is acceptable."""
    best = select_repairs(
        np.asarray(audit_ok, bool)[None],
        np.asarray(rewards, np.float64)[None],
        np.asarray(distances, np.float64)[None],
        edit_cost=edit_cost,
        threshold=threshold,
    )
    return None if best[0] < 0 else int(best[0])


def repair_rewards(
    audit_ok: Values, rewards: Values, distances: Values, *, edit_cost: float, audit_reject: str
) -> np.ndarray:
    """Rewards of the repair-mode objective: s where honest; where rejected 0 (literal) or -edit_cost (floor).

    An honest wrong repair scores -edit_cost * distance, below the literal 0 of a rejected one; the floor makes cheating
    never better than honest failure. Candidates that were not audited because they are wrong count as honest.

    Args:
      audit_ok: bool, h; any shape.
      rewards: float in [0, 1], same shape.
      distances: float in [0, 1], same shape.
      edit_cost: lambda_edit in [0, 1).
      audit_reject: "literal" or "floor".
    Returns:
      float32 of the common shape.
    Raises:
      ValueError: unknown `audit_reject`.
    Example:
      >>> print(repair_rewards([True, False], [0.0, 1.0], [0.5, 0.5], edit_cost=0.1, audit_reject="floor"))
      [-0.05 -0.1 ]

    Source: IOP, arXiv 2605.05226, J_rep; the floor is ours.
    """
    if audit_reject not in ("literal", "floor"):
        raise ValueError(f"audit_reject = {audit_reject!r}: must be literal or floor")
    scores = repair_score(audit_ok, rewards, distances, edit_cost=edit_cost)
    rejected = -edit_cost if audit_reject == "floor" else 0.0
    return np.where(np.asarray(audit_ok, bool), scores, rejected).astype(np.float32)
