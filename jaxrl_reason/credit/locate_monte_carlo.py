"""Monte-Carlo binary search for the first error: a prefix from which the policy still succeeds holds none.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxrl_reason.credit import locate
from jaxrl_reason.types import Completion, Problem, SampleFn, VerifyFn


@dataclasses.dataclass
class _Search:
    """One search; prefixes are counted in whole steps: that of `good` steps is right, that of `bad` is not."""

    num_steps: int
    bad: int
    good: int = 0
    retested: bool = False  # the boundary has been tested a second time
    spent: int = 0
    result: int | None = None


class _Probe(NamedTuple):
    """A prefix to be continued."""

    row: int
    steps: int
    kind: str  # search | retest | root
    samples: int


class _Asked(NamedTuple):
    """Whom the probes ask, and how often."""

    sample_fn: SampleFn
    verify_fn: VerifyFn
    encode_prompt: Callable[[Problem], Sequence[int]]
    continuations: int
    retest: int
    max_generations: int
    threshold: float
    stage: str


def monte_carlo(
    sample_fn: SampleFn,
    verify_fn: VerifyFn,
    encode_prompt: Callable[[Problem], Sequence[int]],
    step_ids_fn: locate.StepIdsFn,
    *,
    continuations: int,
    retest: int,
    max_generations: int,
    threshold: float,
    stage: str = "locate",
) -> locate.Locator:
    """Binary search over prefixes: a prefix from which the policy still finds the answer holds no error.

    For a wrong completion of M steps, the prefix of m steps is continued k times at temperature 1. MC > 0: the first
    error is later; MC = 0: it is among the first m steps. The search ends at the first step whose prefix has MC = 0
    while the one before it has MC > 0, after about log2 M probes. All completions are searched side by side, with one
    or two calls of the sampler per round.

    A right prefix from which the policy succeeds with probability p looks wrong with probability (1 - p)^k. So the
    boundary is tested once more with `retest` continuations, and one success there moves the search behind it. And
    where the boundary is the first step, the empty prefix must have MC > 0 too: a policy that cannot solve the problem
    at all says nothing about its steps (-2, like a search that runs out of budget). The empty prefix is probed once
    per problem; the cost is booked on the completion that asked.

    Args:
      sample_fn: draws continuations of prefixes.
      verify_fn: outcome verifier on text.
      encode_prompt: policy prompt of a problem as token ids.
      step_ids_fn: step of each token.
      continuations: k per probe of the search, >= 1.
      retest: continuations of the second test of a boundary; 0: none.
      max_generations: most continuations for one completion.
      threshold: tau_r in (0, 1]; a reward at or above it counts as correct.
      stage: name of the draw.
    Returns:
      Locator; never answers -1, since the answers are wrong.
    Raises:
      ValueError: continuations < 1, or a negative retest.
    Example:
      >>> from jaxrl_reason.types import Verdict
      >>> wrong = Completion((7, 8), np.zeros(2, np.float32), "7 8", False, 2)
      >>> def sample(prompts, *, prefixes, num_samples, **kwargs):  # right again while the prefix is empty
      ...     return [[wrong if prefix else Completion((9,), wrong.logprobs, "9", False, 1)] for prefix in prefixes]
      >>> find = monte_carlo(
      ...     sample, lambda problems, texts: [Verdict(float(t == "9"), t, "wrong") for t in texts], lambda problem: (),
      ...     lambda tokens: np.arange(len(tokens)), continuations=1, retest=0, max_generations=9, threshold=0.5,
      ... )
      >>> find([Problem(id="p", prompt="", answer="9")], [wrong]).first_error.step
      array([0], dtype=int32)
    Source: OmegaPRM, arXiv 2406.06592 section 3; differs: no tree and no reuse of rollouts, k fresh continuations per
      probe, the second test, and the test of the empty prefix.
    """
    if continuations < 1 or retest < 0:
        raise ValueError(
            f"continuations = {continuations}, retest = {retest}: must be >= 1 and >= 0"
        )
    asked = _Asked(
        sample_fn,
        verify_fn,
        encode_prompt,
        continuations,
        retest,
        max_generations,
        threshold,
        stage,
    )

    def search(problems, completions, references=None):
        del references
        step_ids = [np.asarray(step_ids_fn(c.tokens)) for c in completions]
        sizes = [int(ids[-1]) + 1 if len(ids) else 0 for ids in step_ids]
        searches = [_Search(num_steps=size, bad=size) for size in sizes]
        solvable: dict[str, bool] = {}  # by problem: the policy finds the answer from nothing
        round_number = 0
        while probes := _next_probes(searches, problems, solvable, asked):
            right = _right_continuations(
                asked, probes, problems, completions, step_ids, round_number
            )
            for probe, count in zip(probes, right, strict=True):
                _update(searches[probe.row], probe, count)
                if probe.kind == "root":
                    solvable[problems[probe.row].id] = count > 0
            round_number += 1
        steps = [locate.UNKNOWN if s.result is None else s.result for s in searches]
        return locate.located(completions, steps, step_ids_fn, [s.spent for s in searches])

    return search


def _next_probes(
    searches: Sequence[_Search],
    problems: Sequence[Problem],
    solvable: dict[str, bool],
    asked: _Asked,
) -> list[_Probe]:
    """What each open search wants to know next; closes those that are done or out of budget."""
    probes: list[_Probe] = []
    roots: set[str] = set()
    for row, search in enumerate(searches):
        if search.result is not None:
            continue
        name = problems[row].id
        probe = _next_probe(row, search, asked)
        if probe is not None and probe.kind == "root" and name in solvable:
            search.result = 0 if solvable[name] else locate.UNKNOWN
        elif probe is None:
            search.result = search.bad - 1
        elif search.spent + probe.samples > asked.max_generations:
            search.result = locate.UNKNOWN
        elif probe.kind != "root":
            probes.append(probe)
        elif name not in roots:  # the others of this problem wait for its answer
            roots.add(name)
            probes.append(probe)
    return probes


def _next_probe(row: int, search: _Search, asked: _Asked) -> _Probe | None:
    """None: the boundary is found and sure."""
    if search.bad - search.good > 1:
        middle = (search.good + search.bad) // 2
        return _Probe(row, middle, "search", asked.continuations)
    # The whole completion needs no test: its answer is wrong.
    if asked.retest and not search.retested and search.bad < search.num_steps:
        return _Probe(row, search.bad, "retest", asked.retest)
    if search.good == 0:
        return _Probe(row, 0, "root", asked.continuations)
    return None


def _update(search: _Search, probe: _Probe, right: int) -> None:
    search.spent += probe.samples
    if probe.kind == "retest":
        search.retested = right == 0
        if right:  # other prefixes found wrong may be as right as this one
            search.good, search.bad = probe.steps, search.num_steps
    elif probe.kind == "search":
        if right:
            search.good = probe.steps
        else:
            search.bad = probe.steps


def _right_continuations(
    asked: _Asked,
    probes: Sequence[_Probe],
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    step_ids: Sequence[np.ndarray],
    round_number: int,
) -> list[int]:
    """How many continuations of each probe are right; one that ran out of budget is not."""
    right = [0] * len(probes)
    for samples in sorted(
        {probe.samples for probe in probes}
    ):  # one call has one number of samples
        chosen = [n for n, probe in enumerate(probes) if probe.samples == samples]
        rows = [probes[n].row for n in chosen]
        cuts = [int(np.searchsorted(step_ids[probes[n].row], probes[n].steps)) for n in chosen]
        groups = asked.sample_fn(
            [asked.encode_prompt(problems[i]) for i in rows],
            stage=f"{asked.stage}/{round_number}/{samples}",
            num_samples=samples,
            temperature=1.0,
            prefixes=[completions[i].tokens[:cut] for i, cut in zip(rows, cuts, strict=True)],
        )
        owners = [n for n in chosen for _ in range(samples)]
        flat = [completion for group in groups for completion in group]
        verdicts = asked.verify_fn(
            [problems[probes[n].row] for n in owners], [c.text for c in flat]
        )
        for n, verdict, completion in zip(owners, verdicts, flat, strict=True):
            right[n] += verdict.reward >= asked.threshold and not completion.truncated
    return right
