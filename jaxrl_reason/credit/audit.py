"""Audits: is a repair with the right answer an honest repair?

Host side. Reads: the network, for the `judge` audit only. Writes: nothing.

A repair is easy to fake, since the repairer sees a right solution: copy the anchor, or overwrite the answer alone.
Every audit made here first runs the same cheap tests (`credit.screen`), and asks its own, costlier question only about
the cases that pass them. `none` has no question of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ml_collections
import numpy as np

from jaxrl_reason.credit import gate, screen, segment
from jaxrl_reason.credit import judge as judge_client
from jaxrl_reason.types import (
    AlignFn,
    Audit,
    AuditResult,
    Completion,
    Problem,
    SampleFn,
    VerifyFn,
)

DeepTest = Callable[[Sequence[screen.Case]], list[AuditResult]]


def _screened(tools: screen.Tools, deep: DeepTest) -> Audit:
    """Audit that runs the cheap tests on all cases and `deep` on those that pass."""

    def audit(
        problems: Sequence[Problem],
        failed: Sequence[Completion],
        anchors: Sequence[Completion],
        repaired: Sequence[Completion],
    ) -> list[AuditResult]:
        cases, results = screen.cheap_tests(tools, problems, failed, anchors, repaired)
        passed = [i for i, result in enumerate(results) if result.accepted]
        if passed:
            for i, result in zip(passed, deep([cases[i] for i in passed]), strict=True):
                results[i] = result
        return results

    return audit


def none(tools: screen.Tools) -> Audit:
    """The cheap tests and nothing else."""
    return _screened(tools, lambda cases: [screen.PASSED] * len(cases))


def replay(tools: screen.Tools, first_error: Callable[[Problem, str], int]) -> Audit:
    """The task's step oracle must find no wrong step.

    Args:
      tools: see `screen.Tools`.
      first_error: 0-indexed first wrong step of a completion's text, -1 where there is none (`StepOracle`).
    Returns:
      Audit.
    """

    def deep(cases: Sequence[screen.Case]) -> list[AuditResult]:
        steps = [first_error(case.problem, case.repaired.text) for case in cases]
        return [
            screen.PASSED if step == -1 else AuditResult(False, f"step {step} is wrong")
            for step in steps
        ]

    return _screened(tools, deep)


def continuation(
    tools: screen.Tools,
    sample_fn: SampleFn,
    verify_fn: VerifyFn,
    encode_prompt: Callable[[Problem], Sequence[int]],
    *,
    k: int,
    threshold: float,
    cut: str = "first_edit",
    stage: str = "audit",
) -> Audit:
    """Audit without an oracle: from inside the repair the policy itself must find the answer in half of k tries.

    The repair is cut and continued at temperature 1 under the policy prompt. Two places to cut:

    - `first_edit`, behind the first edited step: an honest first correction puts the policy back on a right path, a
      sham one leaves it where it was wrong. It cannot see steps that go wrong later, under an answer taken from the
      anchor.
    - `last_step`, before the last step, if the first edit comes before it: a chain that is right so far leads to the
      answer, one that went wrong does not, whatever answer the repair then wrote down, unless a second mistake makes
      up for the first. Its continuations are short, so it costs less too.

    Where the cut reaches the end of the repair, or the answer itself, there is nothing left to find: the repair is
    accepted iff its own outcome is right. Edits in the answer alone never get that far, the cheap tests reject them.
    A completion that ran out of budget is wrong, whatever its text says.

    Args:
      tools: see `screen.Tools`.
      sample_fn: draws all continuations in one call.
      verify_fn: outcome verifier on text.
      encode_prompt: policy prompt of a problem, as token ids.
      k: continuations per repair, >= 1.
      threshold: tau_r in (0, 1]; a reward at or above it counts as correct.
      cut: first_edit | last_step.
      stage: name of the draw.
    Returns:
      Audit.
    Raises:
      ValueError: k < 1, or an unknown cut.
    Source: ours; the estimate of a step by continuations is that of Math-Shepherd, arXiv 2312.08935.
    """
    if k < 1:
        raise ValueError(f"k = {k}: must be >= 1 continuations")
    places = {"first_edit": first_edited_step_end, "last_step": last_step_cut}
    if cut not in places:
        raise ValueError(f"cut = {cut!r}: must be one of {', '.join(places)}")

    def deep(cases: Sequence[screen.Case]) -> list[AuditResult]:
        cuts = [places[cut](tools, case) for case in cases]
        tries = [[case.repaired] for case in cases]
        rows = [i for i, case in enumerate(cases) if not _complete(tools, case.repaired, cuts[i])]
        if rows:
            groups = sample_fn(
                [encode_prompt(cases[i].problem) for i in rows],
                stage=stage,
                num_samples=k,
                temperature=1.0,
                prefixes=[cases[i].repaired.tokens[: cuts[i]] for i in rows],
            )
            for i, group in zip(rows, groups, strict=True):
                tries[i] = list(group)
        owners = [i for i, group in enumerate(tries) for _ in group]
        flat = [completion for group in tries for completion in group]
        verdicts = verify_fn([cases[i].problem for i in owners], [c.text for c in flat])
        right = [0] * len(cases)
        for owner, verdict, completion in zip(owners, verdicts, flat, strict=True):
            right[owner] += verdict.reward >= threshold and not completion.truncated
        return [
            screen.PASSED
            if 2 * r >= len(group)
            else AuditResult(False, f"continuation: {r} of {len(group)} right")
            for r, group in zip(right, tries, strict=True)
        ]

    return _screened(tools, deep)


def first_edited_step_end(tools: screen.Tools, case: screen.Case) -> int:
    """Number of repaired tokens up to and with the step of the first edit.

    A deletion made no repaired token: its step is the one at its place, that is of the repaired token behind it.

    Args:
      tools: see `screen.Tools`.
      case: a repair with at least one edit.
    Returns:
      A cut in [0, len(repaired)].
    """
    ids = np.asarray(tools.step_ids_fn(case.repaired.tokens))
    if not len(ids):
        return 0
    first = min(int(gate.edit_positions(case.alignment).repaired_start[0]), len(ids) - 1)
    return int(np.searchsorted(ids, ids[first], side="right"))


def last_step_cut(tools: screen.Tools, case: screen.Case) -> int:
    """Number of repaired tokens before the last step of the reasoning, or up to the first edited step, if that is more.

    The last step is the one that ends where the answer begins.

    Args:
      tools: see `screen.Tools`.
      case: a repair with at least one edit.
    Returns:
      A cut in [0, len(repaired)].
    """
    tokens = case.repaired.tokens
    ids = np.asarray(tools.step_ids_fn(tokens))
    answer = segment.answer_start(tokens, tools.pieces_fn, tools.answer_marker)
    last = int(np.searchsorted(ids, ids[answer - 1])) if answer else 0
    return max(last, first_edited_step_end(tools, case))


def _complete(tools: screen.Tools, repaired: Completion, cut: int) -> bool:
    tokens = repaired.tokens
    return (
        cut >= len(tokens)
        or segment.answer_start(tokens, tools.pieces_fn, tools.answer_marker) < cut
    )


def judge(
    tools: screen.Tools,
    endpoint: judge_client.Endpoint,
    *,
    rng: np.random.Generator,
    tally: judge_client.Tally,
    patience: int = 3,
    parallel: int = 8,
) -> Audit:
    """A language model behind an OpenAI-compatible endpoint decides; the key is taken from OPENAI_API_KEY.

    A failure of the judge is no verdict (`accepted` None); see `credit.judge`.

    Args:
      tools: see `screen.Tools`.
      endpoint: the judge.
      rng: spreads the waits between tries; not advanced.
      tally: counts questions and failures; kept by the caller from update to update.
      patience: batches in a row without one verdict after which the run ends, >= 1.
      parallel: requests in flight at once, >= 1.
    Returns:
      Audit; raises `judge.JudgeRefused` where the server will never answer, `judge.JudgeDown` after `patience`.
    Raises:
      ValueError: not an http(s) URL, no model, or no positive time.
    """
    judge_client.check_endpoint(endpoint)

    def deep(cases: Sequence[screen.Case]) -> list[AuditResult]:
        asked = [
            {
                "problem": case.problem.prompt,
                "failed": case.failed.text,
                "anchor": case.anchor.text,
                "repaired": case.repaired.text,
            }
            for case in cases
        ]
        results = judge_client.ask_all(endpoint, asked, rng, parallel=parallel)
        tally.count(results)
        if tally.silent >= patience:
            raise judge_client.JudgeDown(
                f"the judge at {judge_client.place(endpoint)} gave no verdict in {tally.silent} updates in a row"
                f" (the last: {results[-1].reason}); see that it runs and answers as credit/judge.py asks it to, then"
                " go on with --resume. iop.judge_patience is the number of updates to wait for it"
            )
        return results

    return _screened(tools, deep)


def per_case(
    fn: Callable[[Problem, Completion, Completion, Completion], tuple[bool, str]],
) -> Audit:
    """Batched Audit from a function of one case: fn(problem, failed, anchor, repaired) -> (accepted, reason).

    Nothing else is tested: a replacement of the audit is the whole audit.

    Example:
      >>> audit = per_case(lambda problem, failed, anchor, repaired: (not repaired.truncated, "truncated"))
      >>> audit([], [], [], [])
      []
    """

    def audit(
        problems: Sequence[Problem],
        failed: Sequence[Completion],
        anchors: Sequence[Completion],
        repaired: Sequence[Completion],
    ) -> list[AuditResult]:
        results = [fn(*case) for case in zip(problems, failed, anchors, repaired, strict=True)]
        return [AuditResult(bool(accepted), reason) for accepted, reason in results]

    return audit


def make_audit(
    iop: ml_collections.ConfigDict,
    *,
    align_fn: AlignFn,
    pieces_fn: Callable[[Sequence[int]], Sequence[str]],
    step_ids_fn: Callable[[Sequence[int]], np.ndarray],
    answer_marker: str,
    sample_fn: SampleFn,
    verify_fn: VerifyFn,
    encode_prompt: Callable[[Problem], Sequence[int]],
    first_error: Callable[[Problem, str], int] | None = None,
    rng: np.random.Generator | None = None,
    tally: judge_client.Tally | None = None,
) -> Audit:
    """The audit that `config.iop.audit` names.

    Args:
      iop: the `iop` section of the config.
      align_fn: token alignment.
      pieces_fn: text of each token.
      step_ids_fn: step of each token.
      answer_marker: text that starts the answer span.
      sample_fn: for `continuation`.
      verify_fn: for `continuation`.
      encode_prompt: policy prompt of a problem as token ids, for `continuation`.
      first_error: step oracle of the task, for `replay`; None where the task has none.
      rng: for `judge`; None: a fixed one.
      tally: for `judge`, whose state it is; None: a new one, so that every batch is the first.
    Returns:
      Audit.
    Raises:
      ValueError: unknown name, or `replay` for a task without a step oracle.
    """
    tools = screen.Tools(
        align_fn,
        pieces_fn,
        step_ids_fn,
        answer_marker,
        iop.anchor_copy_similarity,
        iop.anchor_path_similarity,
    )
    if iop.audit == "replay" and first_error is None:
        raise ValueError(
            "iop.audit = 'replay': this task has no step oracle; use 'continuation' or 'judge'"
        )
    makers = {
        "none": lambda: none(tools),
        "replay": lambda: replay(tools, first_error),
        "continuation": lambda: continuation(
            tools,
            sample_fn,
            verify_fn,
            encode_prompt,
            k=iop.audit_continuations,
            threshold=iop.threshold,
            cut=iop.audit_cut,
        ),
        "judge": lambda: judge(
            tools,
            judge_client.Endpoint(
                iop.judge_url,
                iop.judge_model,
                iop.judge_timeout_s,
                iop.judge_retries,
                iop.judge_deadline_s,
            ),
            rng=rng or np.random.default_rng(0),
            tally=tally or judge_client.Tally(),
            patience=iop.judge_patience,
        ),
    }
    if iop.audit not in makers:
        raise ValueError(f"iop.audit = {iop.audit!r}: must be one of {', '.join(makers)}")
    return makers[iop.audit]()
