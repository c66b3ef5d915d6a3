"""Adaptive truncation: how many of a repair's edits are needed to make the failed completion right.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxrl_reason.credit import gate
from jaxrl_reason.types import Completion, PairAlignment, Problem, SampleFn, VerifyFn


class Truncation(NamedTuple):
    """Kept edits per pair and what finding them cost."""

    num_edits: list[int]  # K* per pair
    generated_tokens: int  # sampled by the policy while grafting


def cut_points(alignment: PairAlignment, num_edits: int) -> tuple[int, int]:
    """Tokens of both sides up to and with the last of the first `num_edits` edits.

    Args:
      alignment: edit ids of both sides.
      num_edits: K >= 0; beyond the edits that there are means all of them.
    Returns:
      (failed_cut, repaired_cut); (0, 0) where no edit is kept.
    Raises:
      ValueError: K is negative, or the ids are no alignment.
    Example:
      >>> import numpy as np
      >>> pair = PairAlignment(np.array([-1, 0, -1]), np.array([-1, 0, -1, 1]), 2)  # abc -> aXcd
      >>> cut_points(pair, 1), cut_points(pair, 2)
      ((2, 2), (3, 4))
    """
    if num_edits < 0:
        raise ValueError(f"num_edits = {num_edits}: must be >= 0")
    last = min(num_edits, alignment.num_edits) - 1
    if last < 0:
        return 0, 0
    place = gate.edit_positions(alignment)
    return (
        int(place.failed_start[last] + place.on_failed[last]),
        int(place.repaired_start[last] + place.on_repaired[last]),
    )


def splice(failed: Sequence[int], repaired: Sequence[int], cuts: tuple[int, int]) -> list[int]:
    """Failed completion with the first edits applied: repaired[:repaired_cut] + failed[failed_cut:].

    Args:
      failed: token ids.
      repaired: token ids.
      cuts: (failed_cut, repaired_cut) from `cut_points`.
    Returns:
      Token ids. Kept tokens before the cut are the same on both sides, so this applies exactly the edits before it.
    Example:
      >>> splice([1, 2, 3], [1, 9, 3, 4], (2, 2))
      [1, 9, 3]
    """
    failed_cut, repaired_cut = cuts
    return [*repaired[:repaired_cut], *failed[failed_cut:]]


def adaptive_num_edits(
    problems: Sequence[Problem],
    failed: Sequence[Completion],
    repaired: Sequence[Completion],
    alignments: Sequence[PairAlignment],
    *,
    num_edits: int,
    kind: str,
    threshold: float,
    verify_fn: VerifyFn,
    decode: Callable[[Sequence[int]], str],
    sample_fn: SampleFn | None = None,
    encode_prompt: Callable[[Problem], Sequence[int]] | None = None,
    stage: str = "graft",
) -> Truncation:
    """Edits kept per pair: K if the graft of the first K is right, else 2K if that of 2K is, else all.

    A pair with at most K (or, in the second round, 2K) edits needs no graft: its graft is the repair itself. Only
    failures of the first round enter the second. A graft that ran out of budget is wrong, whatever its text says.

    Args:
      problems: n problems.
      failed: n failed completions.
      repaired: n accepted repairs of them.
      alignments: n alignments of failed and repaired.
      num_edits: K >= 0; 0: no truncation, all edits are kept and nothing is generated.
      kind: "splice": the graft is `splice`, the failed tail is kept; "continue": the policy goes on greedily, under
        the policy prompt, from the repaired text up to the last kept edit. Where the answer stands at the end, only
        "continue" can show that the first edits suffice.
      threshold: tau_r in (0, 1]; a reward at or above it counts as correct.
      verify_fn: outcome verifier on text.
      decode: token ids to text, special tokens left out; used by "splice".
      sample_fn: used by "continue"; asked at temperature 0.
      encode_prompt: policy prompt of a problem as token ids; used by "continue".
      stage: name of the draw.
    Returns:
      Truncation: K* per pair, and the tokens that "continue" generated.
    Raises:
      ValueError: unknown kind, negative K, unequal numbers of pairs, or "continue" without its functions.
    Source: IOP, arXiv 2605.05226, adaptive truncation (K, 2K, all); "continue" is our second reading of the graft.
    """
    _check_kind(kind, num_edits, sample_fn is not None and encode_prompt is not None)
    if not len(problems) == len(failed) == len(repaired) == len(alignments):
        raise ValueError(
            f"{len(problems)} problems, {len(failed)} failed, {len(repaired)} repaired, {len(alignments)} alignments:"
            " must be as many of each"
        )
    kept = [alignment.num_edits for alignment in alignments]
    if num_edits == 0:
        return Truncation(kept, 0)
    generated_tokens = 0
    open_pairs = list(range(len(kept)))
    for tried in (num_edits, 2 * num_edits):
        open_pairs = [i for i in open_pairs if alignments[i].num_edits > tried]
        if not open_pairs:
            break
        cuts = [cut_points(alignments[i], tried) for i in open_pairs]
        own = [problems[i] for i in open_pairs]
        if kind == "splice":
            texts = [
                decode(splice(failed[i].tokens, repaired[i].tokens, cut))
                for i, cut in zip(open_pairs, cuts, strict=True)
            ]
            # Edits are left over, so the graft ends as the failed completion does.
            truncated = [failed[i].truncated for i in open_pairs]
        else:
            grafts = _continued(
                own,
                [repaired[i] for i in open_pairs],
                [repaired_cut for _, repaired_cut in cuts],
                sample_fn=sample_fn,
                encode_prompt=encode_prompt,
                stage=f"{stage}/{tried}",
            )
            texts = [graft.text for graft, _ in grafts]
            truncated = [graft.truncated for graft, _ in grafts]
            generated_tokens += sum(cost for _, cost in grafts)
        results = zip(open_pairs, verify_fn(own, texts), truncated, strict=True)
        right = {i for i, v, cut_off in results if v.reward >= threshold and not cut_off}
        for i in right:
            kept[i] = tried
        open_pairs = [i for i in open_pairs if i not in right]
    return Truncation(kept, generated_tokens)


def _check_kind(kind: str, num_edits: int, can_continue: bool) -> None:
    if kind not in ("splice", "continue"):
        raise ValueError(f"graft kind {kind!r}: must be splice or continue")
    if kind == "continue" and not can_continue:
        raise ValueError("graft kind 'continue': needs sample_fn and encode_prompt")
    if num_edits < 0:
        raise ValueError(f"num_edits = {num_edits}: must be >= 0; 0 keeps all edits")


def _continued(
    problems: Sequence[Problem],
    repaired: Sequence[Completion],
    cuts: Sequence[int],
    *,
    sample_fn: SampleFn,
    encode_prompt: Callable[[Problem], Sequence[int]],
    stage: str,
) -> list[tuple[Completion, int]]:
    """Greedy completions of repaired[:cut], each with the tokens sampled for it."""
    # A cut behind the last token (all later edits delete) leaves nothing to continue: the graft is the repair.
    grafts = [(completion, 0) for completion in repaired]
    rows = [i for i, cut in enumerate(cuts) if cut < len(repaired[i].tokens)]
    if not rows:
        return grafts
    groups = sample_fn(
        [encode_prompt(problems[i]) for i in rows],
        stage=stage,
        num_samples=1,
        temperature=0.0,
        prefixes=[repaired[i].tokens[: cuts[i]] for i in rows],
    )
    for i, (completion,) in zip(rows, groups, strict=True):
        grafts[i] = (completion, completion.num_generated)
    return grafts
