"""Scores of first-error locators on files of labelled solutions.

Host side; `by_prm` and `by_critic` drive the device. Reads: ProcessBench files, the folder of a model. Writes: nothing.
"""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import rich.table

from jaxrl_reason import config as config_lib
from jaxrl_reason import sharding
from jaxrl_reason.credit import locate_steps
from jaxrl_reason.models import prm as prms
from jaxrl_reason.rollout import critic, step_scores
from jaxrl_reason.types import Problem, StepRewards
from jaxrl_reason.verify import processbench

# Problems and the texts of their solutions' steps -> first wrong step of each; -1: none, -2: unknown.
LocateSteps = Callable[[Sequence[Problem], Sequence[Sequence[str]]], Sequence[int]]
_CHUNK_ROWS = 32  # solutions that a reward model reads at once


def executable(problems: Sequence[Problem], solutions: Sequence[Sequence[str]]) -> list[int]:
    """First step with an equation that does not hold (`verify.steps`); unknown where there is none to compute."""
    return locate_steps.executable(problems, solutions).steps


def by_prm(folder: str | os.PathLike, threshold: float, *, max_tokens: int = 4096) -> LocateSteps:
    """First step whose reward is below the threshold, min {m: p_m < tau}, on all devices.

    Args:
      folder: as `models.prm.load_prm` reads it.
      threshold: tau in (0, 1].
      max_tokens: of a question with its steps; what is longer is read up to there, and its later steps are unknown.
    Raises:
      FileNotFoundError: a file of the model is missing.
      ValueError: a threshold outside (0, 1]; the folder holds another kind of model.
    Source: VPPO, arXiv 2601.18984 section 3.1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold:g}: must be in (0, 1]")
    mesh = sharding.make_mesh(config_lib.base().mesh)
    prm = prms.load_prm(folder, mesh=mesh)
    scorer = step_scores.StepScorer(prm, max_tokens=max_tokens, chunk_rows=_CHUNK_ROWS, mesh=mesh)

    def step_rewards(
        problems: Sequence[Problem], solutions: Sequence[Sequence[str]]
    ) -> StepRewards:
        return scorer([problem.prompt for problem in problems], solutions)

    judge = locate_steps.by_rewards(step_rewards, threshold)
    return lambda problems, solutions: judge(problems, solutions).steps


def by_critic(
    folder: str | os.PathLike,
    *,
    samples: int = 1,
    prompt_tokens: int = 4096,
    new_tokens: int = 2048,
) -> LocateSteps:
    r"""First step that a language model names in \boxed{}, on all devices.

    Args:
      folder: as `models.policy.load_policy` reads it.
      samples: answers to each question; 1: greedy; more: majority at temperature 0.7.
      prompt_tokens: of a question with its steps; what is longer is unknown.
      new_tokens: of an answer.
    Raises:
      FileNotFoundError: no such model.
      ValueError: a number below 1, or a tokenizer that lacks the prompt's words.
    Source: ProcessBench, arXiv 2412.06559, which takes 8 samples.
    """
    config = config_lib.base()
    config.locate.critic_source, config.locate.critic_samples = str(folder), samples
    config.locate.critic_prompt_tokens = prompt_tokens
    config.locate.critic_new_tokens = new_tokens
    config.rollout.chunk_rows = max(_CHUNK_ROWS, samples)
    config_lib.validate(config)
    judge = critic.load_critic(config, None, sharding.make_mesh(config.mesh))
    ask = critic.ask_fn(judge, judge.params, jax.random.key(config.seed))
    find = locate_steps.by_critic(ask, samples)
    return lambda problems, solutions: find(problems, solutions).steps


def make_locator(
    name: str, *, model: str = "", threshold: float = 0.5, **critic_settings: int
) -> LocateSteps:
    """The locator of this name.

    Args:
      name: executable | prm | critic.
      model: folder of the reward model or of the critic.
      threshold: of "prm".
      critic_settings: of "critic", see `by_critic`.
    Raises:
      ValueError: there is none of this name, or no model where it needs one; see also `by_prm` and `by_critic`.
    Example:
      >>> make_locator("executable")([Problem("p", "Add.", "")], [["2 + 3 = 5", "5 + 1 = 7"]])
      [1]
    """
    if name == "executable":
        return executable
    if name not in ("prm", "critic"):
        raise ValueError(f"locator {name!r}: must be one of executable, prm, critic")
    if not model:
        kind = "reward" if name == "prm" else "language"
        raise ValueError(f"locator {name!r}: needs a {kind} model; give --model FOLDER")
    return by_prm(model, threshold) if name == "prm" else by_critic(model, **critic_settings)


def measure(
    paths: Sequence[str | os.PathLike], locate_fn: LocateSteps
) -> dict[str, dict[str, float]]:
    """Scores of each file, and their means in "average" where there are several, as ProcessBench reports them.

    Args:
      paths: ProcessBench subsets.
      locate_fn: sees questions and steps, not labels.
    Returns:
      {name of the file: fields of `verify.processbench.Scores`, share of solutions of which the locator does not know,
      which count as "no error", and seconds}.
    Raises:
      FileNotFoundError: no such file.
      ValueError: a bad record; two files of one name.
    """
    results: dict[str, dict[str, float]] = {}
    for path in paths:
        name = pathlib.Path(path).stem
        if name in results:
            raise ValueError(f"{path}: a second file called {name}; the table needs other names")
        found = processbench.read(path)
        problems = [Problem(r.id, r.problem, "") for r in found]
        start = time.monotonic()
        predictions = list(locate_fn(problems, [r.steps for r in found]))
        seconds = time.monotonic() - start
        scores = processbench.score([r.label for r in found], predictions)
        unknown = sum(p < processbench.NO_ERROR for p in predictions) / len(found)
        results[name] = {**scores._asdict(), "unknown": unknown, "seconds": seconds}
    if len(results) > 1:
        each = list(results.values())
        results["average"] = {f: sum(r[f] for r in each) / len(each) for f in each[0]}
    return results


def table(results: Mapping[str, Mapping[str, Any]]) -> rich.table.Table:
    """Scores in percent; erroneous (match), earlier, later and missed split the solutions with an error."""
    columns = ("f1", "erroneous", "correct", "earlier", "later", "missed")
    made = rich.table.Table("subset", *columns, "of")
    for name, scores in results.items():
        total = scores["num_erroneous"] + scores["num_correct"]
        counts = f"{scores['num_erroneous']:g} / {total:g}"
        made.add_row(name, *(f"{100 * scores[c]:.1f}" for c in columns), counts)
    return made
