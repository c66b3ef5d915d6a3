"""Bilateral gates: which tokens of a failed and a repaired completion may be trained.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from jaxrl_reason.types import PairAlignment

# Widest that `clip_scale` opens the clip: past 25 times fewer tokens the square root law would make it meaningless.
MAX_CLIP_SCALE = 5.0


class EditPositions(NamedTuple):
    """Where each edit of a pair stands on both sides; arrays [num_edits]."""

    failed_start: np.ndarray  # int: failed tokens before the edit
    repaired_start: np.ndarray  # int: repaired tokens before the edit
    on_failed: np.ndarray  # bool: it substitutes or deletes the failed token at failed_start
    on_repaired: np.ndarray  # bool: it made the repaired token at repaired_start


def edit_positions(alignment: PairAlignment) -> EditPositions:
    """Place of every edit on both sides: kept tokens before it, plus earlier edits that touch that side.

    Args:
      alignment: edit ids of both sides, numbered from left to right; -1 on kept tokens.
    Returns:
      EditPositions, arrays [num_edits].
    Raises:
      ValueError: the ids are no alignment: not increasing, a missing edit, or unequal numbers of kept tokens.
    Example:
      >>> pair = PairAlignment(np.array([-1, 0, -1]), np.array([-1, -1, 1]), 2)  # abc -> acd
      >>> place = edit_positions(pair)
      >>> print(place.failed_start, place.repaired_start)
      [1 3] [1 2]
    """
    failed_ids, repaired_ids = (
        np.asarray(alignment.failed_edit_ids),
        np.asarray(alignment.repaired_edit_ids),
    )
    num_edits = alignment.num_edits
    on_failed, failed_at = _touched(failed_ids, num_edits)
    on_repaired, repaired_at = _touched(repaired_ids, num_edits)
    kept = np.sum(failed_ids < 0), np.sum(repaired_ids < 0)
    if kept[0] != kept[1] or not np.all(on_failed | on_repaired):
        raise ValueError(
            f"no alignment: {kept[0]} failed and {kept[1]} repaired tokens are kept, and"
            f" {np.sum(~(on_failed | on_repaired))} of {num_edits} edits touch no token"
        )
    earlier_failed = np.cumsum(on_failed) - on_failed
    earlier_repaired = np.cumsum(on_repaired) - on_repaired
    kept_before = np.where(on_failed, failed_at - earlier_failed, repaired_at - earlier_repaired)
    return EditPositions(
        kept_before + earlier_failed, kept_before + earlier_repaired, on_failed, on_repaired
    )


def _touched(ids: np.ndarray, num_edits: int) -> tuple[np.ndarray, np.ndarray]:
    """For each edit: whether it touches this side, and the token that it touches."""
    (tokens,) = np.nonzero(ids >= 0)
    edits = ids[tokens].astype(np.int64)
    if np.any(np.diff(edits) <= 0) or np.any(edits >= num_edits):
        raise ValueError(
            f"edit ids {edits.tolist()}: must increase from left to right and stay below {num_edits}"
        )
    on_side, at = np.zeros(num_edits, bool), np.zeros(num_edits, np.int64)
    on_side[edits], at[edits] = True, tokens
    return on_side, at


def gates(
    alignment: PairAlignment, num_edits_kept: int, *, mark_insertion_point: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of both sides that belong to the first K* edits: g_t = 1 where 0 <= edit_id_t < K*.

    An insertion touches no failed token (and a deletion no repaired one), so a pair of insertions alone leaves the
    failed gate empty: such a side is no training row. With `mark_insertion_point` each kept insertion gates the failed
    token that stands where the insertion should be; at the end of the text, the last one.

    Args:
      alignment: edit ids of both sides.
      num_edits_kept: K* >= 0, as returned by `graft.adaptive_num_edits`; 0 keeps none.
      mark_insertion_point: see above.
    Returns:
      (failed gate [len(failed)] bool, repaired gate [len(repaired)] bool).
    Raises:
      ValueError: K* is negative, or the ids are no alignment.
    Example:
      >>> pair = PairAlignment(np.array([-1, -1]), np.array([-1, 0, -1]), 1)  # ab -> aXb
      >>> gates(pair, 1, mark_insertion_point=True)[0].tolist()
      [False, True]

    Source: IOP, arXiv 2605.05226, bilateral masks; the insertion point is ours.
    """
    if num_edits_kept < 0:
        raise ValueError(f"num_edits_kept = {num_edits_kept}: must be >= 0")
    failed_gate, repaired_gate = (
        (ids >= 0) & (ids < num_edits_kept)
        for ids in (np.asarray(alignment.failed_edit_ids), np.asarray(alignment.repaired_edit_ids))
    )
    if mark_insertion_point and len(failed_gate):
        place = edit_positions(alignment)
        kept = place.failed_start[:num_edits_kept][~place.on_failed[:num_edits_kept]]
        failed_gate[np.minimum(kept, len(failed_gate) - 1)] = True
    return failed_gate, repaired_gate


def clip_scale(length: int, num_gated: int, kind: str) -> float:
    """Factor on both clip widths of a gated row: 1 (none), or min(sqrt(length / gated tokens), 5) (sqrt).

    The mean log-ratio of a share p of the tokens spreads about 1 / sqrt(p) times as wide as that of all of them, so
    sequence-level clips made for whole completions would clip gated rows far more often.

    Args:
      length: tokens of the completion.
      num_gated: tokens that its gate lets through.
      kind: "none" or "sqrt".
    Returns:
      A factor in [1, 5]; 1 where the gate is empty.
    Raises:
      ValueError: unknown kind, or more gated tokens than there are.
    Example:
      >>> clip_scale(64, 16, "sqrt")
      2.0

    Source: ours, for the gated ratio of IOP, arXiv 2605.05226, under the clip of GSPO, arXiv 2507.18071.
    """
    if kind not in ("none", "sqrt"):
        raise ValueError(f"clip_scale kind {kind!r}: must be none or sqrt")
    if not 0 <= num_gated <= length:
        raise ValueError(f"num_gated = {num_gated}: must be in [0, {length}], the length")
    if kind == "none" or num_gated == 0:
        return 1.0
    return min(math.sqrt(length / num_gated), MAX_CLIP_SCALE)
