"""SRL where it is meant to win: answers are right by luck alone, and experts have solved the problems.

Host side; drives the device. Reads: configs/. Writes: runs below --runs; a table on standard output, JSON to --out.

Usage: python benchmarks/experts.py [--seeds 3] [--workers 2] [--out benchmarks/results/experts.json]

Lists modulo 30, a start whose right answers are about as frequent as lucky ones. Four ways on, with the same experts'
solutions of the same problems: RLVR (GRPO; groups that are all right or all wrong are replaced), SFT and then RLVR, SRL
and then RLVR, and SRL alone. Every arm generates the same number of tokens; SFT generates none, so RLVR has all of them
there. SFT sees the problems of SRL's first phase three times (the paper's three epochs), and its learning rate is
chosen among three by the accuracy after RLVR, on a seed of its own; SRL's and RLVR's are those of the configs.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform

import jax
import numpy as np

from jaxrl_reason import compare, metrics, sft, tasks
from jaxrl_reason import config as config_lib

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
TASK = ["task.modulus=30", "task.expert_order=left"]
START = ["sft.policy_updates=350", "sft.repair_updates=0", "sft.repair_start=1.0"]
SFT_RATES = (1e-4, 3e-4, 1e-3)
SWEEP_SEED, FIRST_SEED, EVAL_SEED = 100, 10, 3_000_017
EPOCHS, BATCH_ROWS = 3, 64
RLVR = ("grpo_arithmetic.py", ["rollout.max_refills=4"])


def demonstrations(options: argparse.Namespace, seed: int) -> pathlib.Path:
    """JSONL of the experts' solutions of the problems that SRL's phase asks in a run of this seed."""
    config = config_lib.load(CONFIGS / "srl_arithmetic.py", TASK)
    task = tasks.make_task(config.task).whole
    rng = np.random.default_rng(seed)
    lines = []
    for update in range(options.srl_updates):
        for problem in task.batch(seed, update, config.rollout.num_prompts):
            text = {
                "prompt": task.policy_prompt(problem),
                "completion": task.demonstrate(problem, rng),
            }
            lines.append(json.dumps(text))
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
        sft.sft(config_lib.load(CONFIGS / "sft_arithmetic.py", changes))
    return folder / "policy"


def job(
    options: argparse.Namespace,
    name: str,
    seed: int,
    recipe: tuple[str, list[str]],
    start: pathlib.Path,
) -> compare.Job:
    """One run."""
    file, changes = recipe
    folder = options.runs / name / f"seed{seed}"
    overrides = [
        *TASK,
        *changes,
        "optim.learning_rate=1e-3",
        f"model.source={start}",
        f"train.max_generated_tokens={options.tokens}",
        f"train.num_updates={options.srl_updates}",  # of a first phase; tokens end the last
        "train.checkpoint_every=100000",
        "train.tensorboard=False",
        "eval.every=10",
        f"eval.seed={EVAL_SEED}",
        f"seed={seed}",
        f"run_dir={folder}",
    ]
    return compare.Job(str(folder), str(CONFIGS / file), tuple(overrides))


def run(options: argparse.Namespace, jobs: list[compare.Job]) -> None:
    """All that are missing."""
    compare.run_all(jobs, options.workers, compare.run_job, compare.is_done)


def accuracy(one: compare.Job) -> float:
    """At temperature 1, at the end."""
    return float(compare.solved(pathlib.Path(one.folder))[1].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=160_000, help="generated, of one run")
    parser.add_argument("--srl-updates", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/experts"))
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    options = parser.parse_args()
    start = options.runs / "start"
    if not (start / "policy").exists():
        given = [*TASK, *START, f"run_dir={start}"]
        sft.sft(config_lib.load(CONFIGS / "sft_arithmetic.py", given))
    sweep = {
        rate: job(
            options, f"sweep_sft_{rate:g}", SWEEP_SEED, RLVR, tuned(options, SWEEP_SEED, rate)
        )
        for rate in SFT_RATES
    }
    run(options, list(sweep.values()))
    swept = {rate: accuracy(one) for rate, one in sweep.items()}
    rate = max(swept, key=swept.get)
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    own = start / "policy"
    arms = {
        "RLVR": [job(options, "rlvr", s, RLVR, own) for s in seeds],
        "SFT, then RLVR": [
            job(options, "sft_rlvr", s, RLVR, tuned(options, s, rate)) for s in seeds
        ],
        "SRL, then RLVR": [
            job(options, "srl_rlvr", s, ("srl_then_rlvr_arithmetic.py", []), own) for s in seeds
        ],
        "SRL alone": [job(options, "srl", s, ("srl_arithmetic.py", []), own) for s in seeds],
    }
    run(options, [one for arm in arms.values() for one in arm])
    table = compare.summarise(
        {name: [pathlib.Path(one.folder) for one in arm] for name, arm in arms.items()}
    )
    for name, arm in arms.items():
        lines = [metrics.read_metrics(pathlib.Path(one.folder) / "metrics.jsonl") for one in arm]
        table[name] |= {
            "finals": [accuracy(one) for one in arm],
            "groups_without_signal_at_first": float(
                np.mean([rows[1]["reward/frac_zero_std"] for rows in lines])
            ),
        }
    print(compare.markdown(table))
    print(f"accuracy after SFT and RLVR by SFT's learning rate, one seed: {swept}")
    if options.out:
        about = {
            "command": "python benchmarks/experts.py",
            "generated_tokens": options.tokens,
            "srl_updates": options.srl_updates,
            "sft_sweep": {f"{r:g}": a for r, a in swept.items()},
            "device": jax.devices()[0].device_kind,
            "machine": platform.machine(),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(about | {"arms": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
