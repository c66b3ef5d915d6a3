"""SRL where it is meant to win: problems that the start never solved, with experts' solutions of them.

Host side; drives the device. Reads: configs/. Writes: runs below --runs; a table on standard output, JSON to --out.

Usage: python benchmarks/experts.py [--problems 16] [--seeds 3] [--workers 2] [--out benchmarks/results/experts.json]

The setting `rare` of benchmarks/matrix.py: lists of six modulo 30. Training problems are those of 1,024 that its start
did not solve in 16 samples. Four ways on from there, with the same experts' solutions of the same problems: RLVR (GRPO
on the outcome), SFT and then RLVR, SRL and then RLVR, and SRL alone. Every arm generates the same number of tokens; SFT
generates none, so RLVR has all of them there. SFT sees the problems of SRL's phase three times (the paper's three
epochs), and its learning rate is the best of three by accuracy after RLVR, on a seed of its own; RLVR's is 5e-4 and
SRL's 1e-3, the better ones of two in the sweep of `rare`. --problems: only so many are trained on, in all arms.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import pathlib
import platform
import shutil

import jax
import numpy as np

from jaxrl_reason import compare, metrics, parts, sft, solutions, tasks, train
from jaxrl_reason import config as config_lib
from jaxrl_reason.tasks import arithmetic
from jaxrl_reason.types import Problem

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
TASK = ["task.modulus=30", "task.expert_order=left"]
START = ["sft.policy_updates=780", "sft.repair_updates=1400"]
SFT_RATES = (1e-4, 3e-4, 1e-3)
SWEEP_SEED, FIRST_SEED, EVAL_SEED = 100, 10, 3_000_017
POOL_PROBLEMS, POOL_NUMBER, POOL_SAMPLES = 1024, 60_000_000, 16  # problems of no run
EPOCHS, BATCH_ROWS = 3, 64


class Unsolved(arithmetic.Arithmetic):
    """List reduction whose training problems are a given list; evaluation asks fresh ones."""

    def __init__(self, problems: list[Problem], **settings):
        super().__init__(**settings)
        self._unsolved = problems

    def batch(self, seed: int, update: int, num_problems: int, attempt: int = 0) -> list[Problem]:
        if seed == EVAL_SEED:
            return super().batch(seed, update, num_problems, attempt)
        rng = np.random.default_rng([seed, update, attempt])
        order = rng.permutation(len(self._unsolved))
        return [self._unsolved[i] for i in np.resize(order, num_problems)]


def make_task(config, problems: list[Problem]):
    """The task of a config over the given problems."""
    c = config.task
    task = Unsolved(problems, length=c.length, modulus=c.modulus, expert_order=c.expert_order)
    return tasks.in_steps(task, c) if c.steps else task


def unsolved(runs: pathlib.Path, most: int = 0) -> list[Problem]:
    """Problems of the pool that the start did not solve in any sample, or the first `most`; found once, and kept."""
    file = runs / "unsolved.json"
    if not file.exists():
        changes = [*TASK, f"model.source={runs}/start/policy", "rollout.group_size=16"]
        run = parts.make_run(config_lib.load(CONFIGS / "grpo_arithmetic.py", changes))
        count = POOL_PROBLEMS * POOL_SAMPLES
        found: dict[str, tuple[Problem, bool]] = {}
        for s in solutions.sample(run, POOL_NUMBER, count, by="oracle"):
            solved = s.correct or found.get(s.problem.id, (None, False))[1]
            found[s.problem.id] = (s.problem, solved)
        kept = [dataclasses.asdict(problem) for problem, solved in found.values() if not solved]
        file.write_text(json.dumps(kept))
    return [Problem(**record) for record in json.loads(file.read_text())][: most or None]


def demonstrations(options: argparse.Namespace, seed: int) -> pathlib.Path:
    """JSONL of the experts' solutions of the problems that SRL's phase asks first in a run of this seed."""
    config = config_lib.load(CONFIGS / "srl_arithmetic.py", TASK)
    task = make_task(config, unsolved(options.runs, options.problems)).whole
    rng = np.random.default_rng(seed)
    lines = []
    for update in range(options.srl_updates):
        for problem in task.batch(seed, update, config.rollout.num_prompts):
            prompt, text = task.policy_prompt(problem), task.demonstrate(problem, rng)
            lines.append(json.dumps({"prompt": prompt, "completion": text}))
    path = options.runs / f"demonstrations_seed{seed}.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def tuned(options: argparse.Namespace, seed: int, rate: float) -> pathlib.Path:
    """Policy after SFT on those solutions, made if it is missing."""
    folder = options.runs / f"sft_{rate:g}" / f"seed{seed}"
    if not (folder / "policy").exists():
        file = demonstrations(options, seed)
        updates = EPOCHS * len(file.read_text().splitlines()) // BATCH_ROWS
        changes = [
            *TASK,
            f"sft.path={file}",
            f"sft.policy_updates={updates}",
            f"sft.learning_rate={rate}",
            "sft.optimizer=adamw",
            f"sft.batch_rows={BATCH_ROWS}",
            f"model.source={options.runs}/start/policy",
            f"run_dir={folder}",
            f"seed={seed}",
        ]
        begun = (folder / "config.json").exists()
        sft.sft(config_lib.load(CONFIGS / "sft_arithmetic.py", changes), resume=begun)
    return folder / "policy"


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: SRL for so many updates, then RLVR, up to the token budget of both."""

    folder: str
    start: str
    seed: int
    srl_updates: int  # 0: none; a number that the budget ends: SRL alone
    tokens: int
    runs: str
    problems: int  # trained on; 0: all


def run_job(job: Job) -> str:
    """The phases of a run, each from the parameters of the one before."""
    problems = unsolved(pathlib.Path(job.runs), job.problems)
    folder = pathlib.Path(job.folder)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut off
    spent, start, phases = 0, job.start, []
    if job.srl_updates:
        phases.append(("srl", "1e-3", job.srl_updates))
    phases.append(("grpo", "5e-4", 100_000))
    for name, rate, updates in phases:
        if spent >= job.tokens:
            break
        changes = [
            *TASK,
            f"optim.learning_rate={rate}",
            f"model.source={start}",
            f"train.max_generated_tokens={job.tokens - spent}",
            f"train.num_updates={updates}",
            "train.checkpoint_every=100000",
            "train.tensorboard=False",
            "eval.every=0",
            f"eval.seed={EVAL_SEED}",
            f"seed={job.seed}",
            f"run_dir={folder}/{name}",
        ]
        config = config_lib.load(CONFIGS / f"{name}_arithmetic.py", changes)
        write = [metrics.JsonlWriter(folder / name / "metrics.jsonl")]
        train.train(config, task=make_task(config, problems), writers=write)
        spent += int(lines_of(folder / name)[-1]["perf/generated_tokens"])
        start = f"{folder}/{name}"
    (folder / "done").touch()
    return job.folder


def lines_of(folder: pathlib.Path) -> list[dict]:
    """Metrics of a phase."""
    return metrics.read_metrics(folder / "metrics.jsonl")


def is_done(job: Job) -> bool:
    """Whether the run has come to its end."""
    return (pathlib.Path(job.folder) / "done").exists()


def phases_of(job: Job) -> list[pathlib.Path]:
    """Folders of the phases that the run had, in order."""
    return [f for n in ("srl", "grpo") if (f := pathlib.Path(job.folder) / n).exists()]


def summarise(arms: dict[str, list[Job]]) -> dict[str, dict]:
    """What the table shows of each arm; differences are to the first."""
    table: dict[str, dict] = {}
    reference = None
    for name, jobs in arms.items():
        solved = [compare.solved(phases_of(job)[-1]) for job in jobs]
        sampled = np.stack([s[1] for s in solved])
        reference = sampled if reference is None else reference
        lines = [[lines_of(phase) for phase in phases_of(job)] for job in jobs]
        table[name] = {
            "sampled": compare.mean_std(sampled.mean(axis=1).tolist()),
            "greedy": compare.mean_std([float(s[2].mean()) for s in solved]),
            "finals": sampled.mean(axis=1).tolist(),
            "updates": [[rows[-1]["update"] for rows in run] for run in lines],
            "tokens": [sum(r[-1]["perf/generated_tokens"] for r in run) for run in lines],
            "equal_at_first": float(np.mean([run[-1][1]["reward/frac_zero_std"] for run in lines])),
            "difference": compare.paired_bootstrap(sampled, reference),
        }
    return table


def print_table(table: dict[str, dict]) -> None:
    """Markdown, as the README shows it."""
    print("| way | temperature 1 | greedy | updates | difference to RLVR |")
    print("| --- | --- | --- | --- | --- |")
    for name, arm in table.items():
        (mean, std), (greedy, greedy_std) = arm["sampled"], arm["greedy"]
        updates = " + ".join(f"{np.mean(n):.0f}" for n in zip(*arm["updates"], strict=True))
        difference, low, high, p = arm["difference"]
        shown = f"{difference:+.3f} [{low:+.3f}, {high:+.3f}], p = {p:.2g}"
        print(
            f"| {name} | {mean:.3f} ± {std:.3f} | {greedy:.3f} ± {greedy_std:.3f} | {updates} |"
            f" {shown if name != 'RLVR' else ''} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--problems", type=int, default=0, help="trained on; 0: all")
    parser.add_argument("--tokens", type=int, default=160_000, help="generated, of one run")
    parser.add_argument("--srl-updates", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/experts"))
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    options = parser.parse_args()
    start = options.runs / "start"
    if not (start / "policy").exists():
        given = [TASK[0], *START, f"run_dir={start}"]
        begun = (start / "config.json").exists()
        sft.sft(config_lib.load(CONFIGS / "sft_arithmetic.py", given), resume=begun)
    problems = unsolved(options.runs)
    print(f"{len(problems)} of {POOL_PROBLEMS} problems were not solved in {POOL_SAMPLES} samples")
    seeds, own = range(FIRST_SEED, FIRST_SEED + options.seeds), str(start / "policy")

    def job(name: str, seed: int, start: str | pathlib.Path, srl_updates: int) -> Job:
        folder = str(options.runs / name / f"seed{seed}")
        runs, most = str(options.runs), options.problems
        return Job(folder, str(start), seed, srl_updates, options.tokens, runs, most)

    run = functools.partial(compare.run_all, workers=options.workers, run=run_job, done=is_done)
    sweep = {
        rate: job(f"sweep_sft_{rate:g}", SWEEP_SEED, tuned(options, SWEEP_SEED, rate), 0)
        for rate in SFT_RATES
    }
    run(list(sweep.values()))
    swept = {r: float(compare.solved(phases_of(one)[-1])[1].mean()) for r, one in sweep.items()}
    rate = max(swept, key=swept.get)
    arms = {
        "RLVR": [job("rlvr", s, own, 0) for s in seeds],
        "SFT, then RLVR": [job("sft_rlvr", s, tuned(options, s, rate), 0) for s in seeds],
        "SRL, then RLVR": [job("srl_rlvr", s, own, options.srl_updates) for s in seeds],
        "SRL alone": [job("srl", s, own, 100_000) for s in seeds],
    }
    run([one for arm in arms.values() for one in arm])
    table = summarise(arms)
    print_table(table)
    print(f"accuracy after SFT and RLVR by SFT's learning rate, one seed: {swept}")
    if options.out:
        about = {
            "command": "python benchmarks/experts.py",
            "generated_tokens": options.tokens,
            "srl_updates": options.srl_updates,
            "trained_on": options.problems or len(problems),
            "unsolved": len(problems),
            "sft_sweep": {f"{r:g}": a for r, a in swept.items()},
            "device": jax.devices()[0].device_kind,
            "machine": platform.machine(),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(about | {"arms": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
