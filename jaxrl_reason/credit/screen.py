"""Tests of a repair that cost nothing: some edit, no anchor copy, not the answer alone, no mention of the anchor.

Host side. Reads: nothing. Writes: nothing. Every audit of `credit.audit` runs them first.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxrl_reason.credit import repair, segment
from jaxrl_reason.types import (
    AlignFn,
    AuditResult,
    Completion,
    PairAlignment,
    Problem,
)

PASSED = AuditResult(True, "passed")

# What an honest solution has no reason to say. A word starts at each, so that "preference" is none of them.
_MENTIONS = {
    phrase: re.compile(r"\b" + r"\s+".join(map(re.escape, phrase.split())), re.IGNORECASE)
    for phrase in ("reference", "anchor", "previous attempt", "the given solution")
}


@dataclasses.dataclass(frozen=True)
class Tools:
    """What every audit needs to look at token ids."""

    align_fn: AlignFn
    pieces_fn: Callable[
        [Sequence[int]], Sequence[str]
    ]  # text of each token, `segment.token_pieces`
    step_ids_fn: Callable[[Sequence[int]], np.ndarray]  # step of each token, `segment.step_ids`
    answer_marker: str  # text that starts the answer span, such as "=" or "####"
    anchor_copy_similarity: float  # in [0, 1]: a repair this close to its anchor is a copy,
    anchor_path_similarity: float  # in [0, 1]: unless the failed text was this close to it before


class Case(NamedTuple):
    """One repair under audit."""

    problem: Problem
    failed: Completion
    anchor: Completion
    repaired: Completion
    alignment: PairAlignment  # of failed and repaired


def cheap_tests(
    tools: Tools,
    problems: Sequence[Problem],
    failed: Sequence[Completion],
    anchors: Sequence[Completion],
    repaired: Sequence[Completion],
) -> tuple[list[Case], list[AuditResult]]:
    """Tests that need no network: any edit at all, no anchor copy, an edit before the answer, no mention of the anchor.

    - Copy: similarity 1 - Lev / max(len) of repair and anchor, on token ids, is at least
      `tools.anchor_copy_similarity` (1 if their texts are equal), while that of failed and anchor is below
      `tools.anchor_path_similarity`. A failed text that took the anchor's path up to its mistake has the anchor as its
      smallest repair: that is no copy, and as the policy settles on one way to solve, it is what most repairs become.
      A slip changes all that follows from it, so such a text is seldom as close to the anchor as a copy: hence the
      second, lower limit. It lets off about half of the accepted repairs of a trained policy, exact copies among them
      (3% of accepted pairs in lists of six), which are for the audit proper to find.
    - Answer-only: on both sides every edit lies at or behind the last answer marker; a side without one has no
      answer span.
    - Mention: "reference", "anchor", "previous attempt" or "the given solution" in the repair, unless the problem or
      the failed text already says it.

    Args:
      tools: see `Tools`; `align_fn` is called once, for all three pairs of each case.
      problems: n problems.
      failed: n failed completions.
      anchors: n anchors.
      repaired: n repairs.
    Returns:
      (n cases, n results); the first failing test names the reason.
    Example:
      >>> def same(a, b):  # every pair equal: no edit
      ...     none = [np.full(len(x), -1) for x in a]
      ...     return [PairAlignment(n, n, 0) for n in none]
      >>> from jaxrl_reason.types import Problem
      >>> text = Completion((5, 6), np.zeros(2, np.float32), "= 8", False, 2)
      >>> tools = Tools(same, lambda ids: ["", ""], lambda ids: np.zeros(2), "=", 0.9, 0.6)
      >>> cheap_tests(tools, [Problem("p", "3 5", "8")], [text], [text], [text])[1]
      [AuditResult(accepted=False, reason='no edit')]
    Source: audit of IOP, arXiv 2605.05226, whose content is not stated there; these tests are ours.
    """
    n = len(problems)
    if not n == len(failed) == len(anchors) == len(repaired):
        raise ValueError(
            f"{n} problems, {len(failed)} failed, {len(anchors)} anchors, {len(repaired)} repaired:"
            " must be as many of each"
        )
    if not n:
        return [], []
    fs, ans, rs = ([c.tokens for c in side] for side in (failed, anchors, repaired))
    pairs = tools.align_fn([*fs, *rs, *fs], [*rs, *ans, *ans])
    similarity = 1.0 - repair.pair_distances(pairs[n:])
    cases = [
        Case(*case) for case in zip(problems, failed, anchors, repaired, pairs[:n], strict=True)
    ]
    results = [
        _cheap_result(tools, case, to_anchor, failed_to_anchor)
        for case, to_anchor, failed_to_anchor in zip(
            cases, similarity[:n], similarity[n:], strict=True
        )
    ]
    return cases, results


def _cheap_result(
    tools: Tools, case: Case, to_anchor: float, failed_to_anchor: float
) -> AuditResult:
    if case.alignment.num_edits == 0:
        return AuditResult(False, "no edit")
    if case.repaired.text.strip() == case.anchor.text.strip():
        to_anchor = (
            1.0  # the data set's solution may be tokenised otherwise than a sampled copy of it
        )
    off_path = failed_to_anchor < tools.anchor_path_similarity
    if to_anchor >= tools.anchor_copy_similarity and off_path:
        return AuditResult(False, "anchor copy")
    if _answer_only(tools, case):
        return AuditResult(False, "answer-only edit")
    for phrase, pattern in _MENTIONS.items():
        if pattern.search(case.repaired.text) and not (
            pattern.search(case.problem.prompt) or pattern.search(case.failed.text)
        ):
            return AuditResult(False, f"mentions {phrase!r}")
    return PASSED


def _answer_only(tools: Tools, case: Case) -> bool:
    sides = (
        (case.failed.tokens, case.alignment.failed_edit_ids),
        (case.repaired.tokens, case.alignment.repaired_edit_ids),
    )
    return not any(
        np.any(
            np.asarray(ids)[: segment.answer_start(tokens, tools.pieces_fn, tools.answer_marker)]
            >= 0
        )
        for tokens, ids in sides
    )
