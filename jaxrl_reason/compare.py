"""Several configs over seeds at equal generated tokens: runs them, or what is missing of them, and writes one report.

Host side; drives the device through processes of its own. Reads: config files; what runs left in OUT/<config>/seed<n>/.
Writes: those runs, and OUT/report.html, compare.md and compare.json.

A run that is complete is not repeated and one that was cut off goes on where it stopped, so that the same command may
be given again and again. Every run is evaluated on the same problems, so that differences are paired.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import html
import json
import multiprocessing
import os
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxrl_reason import config as config_lib
from jaxrl_reason import evaluate, metrics, report, run_changes, train

_MANY_UPDATES = 1_000_000  # the token budget ends a run, not their number


@dataclasses.dataclass(frozen=True)
class Job:
    """One run."""

    folder: str
    config_file: str
    overrides: tuple[str, ...]


def compare(
    config_files: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    seeds: int = 3,
    tokens: int = 0,
    overrides: Sequence[str] = (),
    workers: int = 1,
) -> pathlib.Path:
    """Run every config with seeds 0 .. seeds - 1 and write the report, which compares all with the first.

    Args:
      config_files: configs of training runs, with different file names; all evaluate on the same problems.
      out: folder of the runs and the report.
      seeds: runs of each config, >= 1.
      tokens: generated tokens of every run, over all of its phases; 0: each config's own train.max_generated_tokens,
        which must then be the same.
      overrides: `name=value`, for all configs.
      workers: processes at a time, each on a core of its own where there are several; 0: in this process.
    Returns:
      Path of report.html.
    Raises:
      ValueError: configs that cannot be compared; names them.
    """
    files = [pathlib.Path(file) for file in config_files]
    jobs = make_jobs(files, pathlib.Path(out), seeds=seeds, tokens=tokens, overrides=overrides)
    runs = [job for arm in jobs.values() for job in arm]
    for job in runs:
        _check_unchanged(job)
    run_all(runs, workers, run_job, is_done)
    return write(jobs, pathlib.Path(out))


def make_jobs(
    files: Sequence[pathlib.Path],
    out: pathlib.Path,
    *,
    seeds: int,
    tokens: int,
    overrides: Sequence[str],
) -> dict[str, list[Job]]:
    """{name of a config: its runs, by seed}.

    Raises:
      ValueError: two files of one name, no token budget, or other evaluation problems.
    """
    names = [file.stem for file in files]
    if len(set(names)) < len(names) or not names or seeds < 1:
        raise ValueError(
            f"configs {', '.join(names) or '(none)'}, {seeds} seeds: give at least one seed, and config files of"
            " different names"
        )
    jobs, shared = {}, {}
    for name, file in zip(names, files, strict=True):
        given = [*overrides, *([f"train.max_generated_tokens={tokens}"] if tokens else [])]
        config = config_lib.load(file, given)
        asked = (
            config.train.max_generated_tokens,
            config.eval.to_dict() | {"every": 0},
            {k: v for k, v in config.task.to_dict().items() if k in _SAME_PROBLEMS},
        )
        shared[name] = asked
        jobs[name] = [
            Job(folder, str(file), (*given, f"seed={seed}", f"run_dir={folder}"))
            for seed in range(seeds)
            for folder in [str(out / name / f"seed{seed}")]
        ]
    if not all(asked[0] for asked in shared.values()):
        raise ValueError(
            "no token budget: give --tokens, or train.max_generated_tokens in each config"
        )
    different = [name for name in names if shared[name] != shared[names[0]]]
    if different:
        raise ValueError(
            f"{', '.join(different)}: other token budget or other evaluation problems than {names[0]}; equal"
            " train.max_generated_tokens, eval.* and task.* are what makes runs comparable"
        )
    return jobs


_SAME_PROBLEMS = (
    *("name", "length", "modulus", "operators", "numbers", "largest", "max_target", "use_all"),
    *("people", "path", "eval_path"),
)


def job_config(job: Job) -> ml_collections.ConfigDict:
    """Config of a run: as its file says, but ended by the token budget alone.

    A schedule that depends on the number of updates keeps it, as do all phases but the last.
    """
    config = config_lib.load(job.config_file, job.overrides)
    last = config_lib.phases(config)[-1]
    endless = {"train.num_updates": _MANY_UPDATES} if last.optim.schedule == "constant" else {}
    if config.then:
        later = json.loads(config.then)
        for changes in later:  # the budget is that of all phases together
            changes.pop("train.max_generated_tokens", None)
        later[-1] |= endless
        config.then = json.dumps(later)
    else:
        config.update_from_flattened_dict(endless)
    return config_lib.validate(config)


def _check_unchanged(job: Job) -> None:
    """Raise where a run that is there was begun with other settings: its arm would be no arm of one config."""
    saved = pathlib.Path(job.folder) / "config.json"
    if saved.exists():
        found = run_changes.changes(run_changes.read(saved)[0], job_config(job))
        run_changes.refuse(saved, found, job_config(job), frozenset(), allowed=run_changes.FREE)


def is_done(job: Job) -> bool:
    """Whether a run has come to its end."""
    return (pathlib.Path(job.folder) / "config.json").exists() and train.is_complete(
        job_config(job)
    )


def run_job(job: Job) -> str:
    """Begin a run, or go on with it; its console is a file of its own."""
    config, folder = job_config(job), pathlib.Path(job.folder)
    resume = train.is_begun(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "console.log").open("a") as log, contextlib.redirect_stdout(log):
        train.train(config, resume=resume)
    return job.folder


def run_all(
    jobs: Sequence[Any],
    workers: int,
    run: Callable[[Any], str],
    done: Callable[[Any], bool],
) -> None:
    """Run what is not done yet, in processes of their own; an error ends all, and what is complete stays.

    Args:
      jobs: anything that can be pickled.
      workers: processes at a time; 0: none, one job after the other in this process.
      run: job -> a few words, printed when it ends; a function of a module.
      done: jobs to leave out.
    """
    waiting = [job for job in jobs if not done(job)]
    if not workers:
        for number, job in enumerate(waiting, 1):
            print(f"{number}/{len(waiting)} {run(job)}", flush=True)
        return
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for number in range(workers):
        # Two workers on the same cores would fight for them; a single one may use all.
        cores.put(affinity[number % len(affinity)] if workers > 1 and affinity else None)
    with concurrent.futures.ProcessPoolExecutor(workers, context, _take_core, (cores,)) as pool:
        for number, words in enumerate(pool.map(run, waiting), 1):
            print(f"{number}/{len(waiting)} {words}", flush=True)


def _take_core(cores: Any) -> None:
    core = cores.get()
    if core is not None:
        os.sched_setaffinity(0, {core})


# --- the report --------------------------------------------------------------------------------------


def write(jobs: dict[str, list[Job]], out: pathlib.Path) -> pathlib.Path:
    """report.html, compare.md and compare.json of runs that are complete."""
    arms = {name: [pathlib.Path(job.folder) for job in arm] for name, arm in jobs.items()}
    table = summarise(arms)
    text = markdown(table)
    (out / "compare.json").write_text(json.dumps(table, indent=1) + "\n")
    (out / "compare.md").write_text(text)
    print(text, end="")
    folders = [folder for arm in arms.values() for folder in arm]
    return report.write_report(folders, out / "report.html", section=html_section(table))


def solved(folder: pathlib.Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(problem ids, [P] share of samples right, [P] greedy 0 or 1) of a run's last evaluation.

    Raises:
      FileNotFoundError: the run kept no evaluation, or only that of its start.
    """
    files = {
        int(f.stem.removeprefix("update_")): f for f in (folder / "eval").glob("update_*.json")
    }
    if not max(files, default=0):
        raise FileNotFoundError(
            f"{folder}/eval: no evaluation of single problems after training; run it again"
        )
    record = json.loads(files[max(files)].read_text())
    sampled = np.array(record["correct"]) / record["num_samples"]
    return record["problems"], sampled, np.array(record["greedy"], float)


def paired_bootstrap(
    ours: np.ndarray, theirs: np.ndarray, *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float, float]:
    """Difference of two arms' means, its 95% interval and two-sided p, by resampling seeds and problems.

    Seeds and problems are drawn with replacement, independently of each other and alike for both arms: seed s of one
    arm is compared with seed s of the other on the same problem.

    Args:
      ours: [S, P] result of each seed on each problem.
      theirs: [S, P] of the arm it is compared with.
      draws: resamples.
      seed: of the resampling.
    Returns:
      (mean of ours - theirs, low, high, p). With a single seed only problems are drawn: nothing is said about others.
    Raises:
      ValueError: other numbers of seeds or problems.
    Example:
      >>> ours, theirs = np.ones((3, 50)), np.zeros((3, 50))
      >>> [round(x, 4) for x in paired_bootstrap(ours, theirs)]
      [1.0, 1.0, 1.0, 0.0002]
    """
    if ours.shape != theirs.shape or ours.ndim != 2:
        raise ValueError(
            f"{ours.shape} against {theirs.shape}: needs the same seeds and problems in both arms"
        )
    difference = (ours - theirs).astype(np.float64)
    num_seeds, num_problems = difference.shape
    rng = np.random.default_rng(seed)
    by_seed = rng.multinomial(num_seeds, [1 / num_seeds] * num_seeds, size=draws) / num_seeds
    by_problem = rng.multinomial(num_problems, [1 / num_problems] * num_problems, size=draws)
    means = np.einsum("dp,dp->d", by_seed @ difference, by_problem / num_problems)
    # A draw on 0 speaks for both sides; dust of the sums must not decide which.
    means[np.abs(means) < 1e-12] = 0
    side = min((means <= 0).sum(), (means >= 0).sum())
    low, high = np.percentile(means, [2.5, 97.5])
    p = min(1.0, 2 * (side + 1) / (draws + 1))
    return float(difference.mean()), float(low), float(high), float(p)


def mean_std(values: Sequence[float | int]) -> tuple[float, float]:
    """Mean and sample standard deviation; 0 for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def summarise(arms: dict[str, list[pathlib.Path]]) -> dict[str, dict[str, Any]]:
    """What the table says about each arm.

    Args:
      arms: {name: run folders by seed}; the first is what the others are compared with.
    Returns:
      {name: `seeds`, and (mean, std) of `start`, `sampled`, `greedy`, `updates`, `tokens`, `seconds`; but for the
      first also `difference` (mean, low, high, p) of accuracy of the samples}.
    Raises:
      ValueError: runs that were evaluated on other problems.
    """
    table: dict[str, dict[str, Any]] = {}
    reference: np.ndarray | None = None
    asked: list[str] | None = None
    for name, folders in arms.items():
        results = [solved(folder) for folder in folders]
        asked = asked or results[0][0]
        if any(result[0] != asked for result in results):
            raise ValueError(f"{name}: evaluated on other problems than {next(iter(arms))}")
        sampled = np.stack([result[1] for result in results])
        lines = [metrics.read_metrics(folder / "metrics.jsonl") for folder in folders]
        table[name] = {
            "seeds": len(folders),
            "start": mean_std([evaluate.accuracies(rows[0])[0] for rows in lines]),
            "sampled": mean_std(sampled.mean(axis=1).tolist()),
            "greedy": mean_std([float(result[2].mean()) for result in results]),
            "updates": mean_std([rows[-1]["update"] for rows in lines]),
            "tokens": mean_std([rows[-1]["perf/generated_tokens"] for rows in lines]),
            "seconds": mean_std([rows[-1]["perf/seconds"] for rows in lines]),
        }
        if reference is None:
            reference = sampled
        else:
            table[name]["difference"] = paired_bootstrap(sampled, reference)
    return table


def cells(table: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(column titles, one row of texts per arm)."""
    first = next(iter(table))
    titles = ["config", "seeds", "start", "sampled", "greedy", "updates", "tokens", "seconds"]
    rows = []
    for name, arm in table.items():
        spread = functools.partial(_spread, arm)
        row = [name, str(arm["seeds"]), spread("start", 3), spread("sampled", 3)]
        row += [spread("greedy", 3), *(spread(k, 0) for k in ("updates", "tokens", "seconds"))]
        if "difference" in arm:
            mean, low, high, p = arm["difference"]
            row.append(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}], p = {p:.2g}")
        rows.append(row if len(row) > len(titles) else [*row, ""])
    return [*titles, f"difference to {first}"], rows


def _spread(arm: dict[str, Any], name: str, digits: int) -> str:
    mean, std = arm[name]
    return f"{mean:.{digits}f} ± {std:.{digits}f}" if arm["seeds"] > 1 else f"{mean:.{digits}f}"


NOTE = (
    "Mean and sample standard deviation over seeds; accuracy of the last evaluation. Differences: 95% interval and"
    " two-sided p of a paired bootstrap over seeds and problems; not corrected for the number of comparisons."
)


def markdown(table: dict[str, dict[str, Any]]) -> str:
    """The table for a README."""
    titles, rows = cells(table)
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{NOTE}\n"


def html_section(table: dict[str, dict[str, Any]]) -> str:
    """The table for the report's page."""
    titles, rows = cells(table)

    def line(tag: str, texts: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    return (
        '<section aria-labelledby="h-compare"><h2 id="h-compare">Comparison</h2>'
        f'<div class="scroll"><table class="book small"><thead>{line("th", titles)}</thead>'
        f'<tbody>{body}</tbody></table></div><p class="caption">{html.escape(NOTE)}</p></section>'
    )
