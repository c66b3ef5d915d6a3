"""IOP against GSPO over seeds: accuracy against updates and against generated tokens, from one start.

Host side; drives the device. Reads: configs/. Writes: runs below --runs; a table on standard output, JSON and a plot
to --out.

Usage: python benchmarks/learning.py demo|long|hard [--seeds 5] [--workers 2] [--out OUT]
       python benchmarks/learning.py long --sweep      learning rates of IOP and GSPO, two seeds each

Every arm gets the same start, the same problems, and the same number of generated tokens, repairs and audits counted.
A run that is complete is not repeated, one that was cut off begins anew; the cold start is made if it is missing.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import json
import math
import pathlib
import platform
import shutil
import statistics

import jax
import ml_collections
import numpy as np

from jaxrl_reason import compare, evaluate, metrics, parts, sft, tasks, train
from jaxrl_reason import config as config_lib
from jaxrl_reason.methods import iop
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.types import Completion

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
# Suffix of the config files and generated tokens of each run.
SETTINGS = {
    "demo": ("arithmetic", 120_000),
    "long": ("arithmetic_long", 150_000),
    "hard": ("arithmetic_hard", 120_000),
}
# The table's seeds and evaluation problems; nothing of IOP was chosen on them.
TABLE_SEED, TABLE_EVAL_SEED = 10, 3_000_017
TASKS_REPAIRS = "IOP on the task's own repairs"
ARMS = {
    "GSPO": ("gspo", []),
    "IOP, continuation audit": ("iop", ["iop.audit=continuation"]),
    "IOP, replay audit (step oracle)": ("iop", ["iop.audit=replay"]),
    "IOP without audit": ("iop", ["iop.audit=none"]),
    "IOP without gating": ("iop", ["iop.audit=continuation", "iop.gate=all"]),
    # The upper bound of all pairs: nothing to learn in repair mode, nothing to audit, no token spent on repairs.
    TASKS_REPAIRS: ("iop", ["iop.audit=none", "iop.num_repairs=1", "iop.repair_weight=0"]),
}
# GSPO's other rate: the sweep's best spread widely over the table's seeds. IOP is measured against the better one.
MORE_ARMS = {"long": {"GSPO, learning rate 5e-4": ("gspo", ["optim.learning_rate=5e-4"])}}
SWEPT = {"GSPO": ARMS["GSPO"], "IOP, continuation audit": ARMS["IOP, continuation audit"]}
LEARNING_RATES = (3e-4, 5e-4, 1e-3)
PROCESS = {
    "process/repair_success": "repair success",
    "process/active_token_ratio": "active-token ratio",
    "process/audit_reject_frac": "audit rejections",
    "process/gate_hit_rate": "gate starts in the wrong step",
    "process/honest_frac": "repairs right in every step",
}


def jobs_of(options: argparse.Namespace) -> dict[str, tuple[str, list[str]]]:
    """Run folder -> (config file, overrides), for every arm, learning rate and seed."""
    suffix, tokens = SETTINGS[options.setting]
    start = options.runs / options.setting / "start" / "policy"
    jobs = {}
    for arm, (method, overrides) in (SWEPT if options.sweep else arms_of(options)).items():
        for rate in LEARNING_RATES if options.sweep else (None,):
            for seed in seeds_of(options):
                folder = folder_of(options, arm, seed, rate)
                jobs[str(folder)] = (
                    str(CONFIGS / f"{method}_{suffix}.py"),
                    [
                        *overrides,
                        f"run_dir={folder}",
                        f"model.source={start}",
                        f"seed={seed}",
                        f"train.max_generated_tokens={options.tokens or tokens}",
                        "train.num_updates=100000",
                        "train.checkpoint_every=100000",
                        "train.tensorboard=False",
                        f"eval.every={options.eval_every}",
                        *([] if options.sweep else [f"eval.seed={TABLE_EVAL_SEED}"]),
                        *([f"optim.learning_rate={rate}"] if rate else []),
                    ],
                )
    return jobs


def arms_of(options: argparse.Namespace) -> dict[str, tuple[str, list[str]]]:
    """Rows of the table: name -> (method, overrides)."""
    return ARMS | MORE_ARMS.get(options.setting, {})


def seeds_of(options: argparse.Namespace) -> range:
    """Those of the sweep, or those of the table."""
    return range(2) if options.sweep else range(TABLE_SEED, TABLE_SEED + options.seeds)


def folder_of(
    options: argparse.Namespace, arm: str, seed: int, rate: float | None = None
) -> pathlib.Path:
    """Run folder of one seed of an arm."""
    name = name_of(arm) + (f"_lr{rate:g}" if rate else "")
    return options.runs / options.setting / name / f"seed{seed}"


def name_of(arm: str) -> str:
    """`IOP, replay audit (step oracle)` -> `iop_replay_audit_step_oracle`."""
    return "_".join("".join(c if c.isalnum() else " " for c in arm.lower()).split())


class TasksRepairs(iop.Iop):
    """IOP whose repairs are the task's own: minimal, right in every step, and free."""

    def __init__(self, config: ml_collections.ConfigDict):
        super().__init__(config)
        self.task = tasks.make_task(config.task)

    def build(self, groups, stages, rng):
        problems = {" ".join(g.problem.prompt.split()): g.problem for g in groups}

        def repaired(prompt: tuple[int, ...]) -> Completion:
            # "repair <problem> : <anchor> | <failed> |", and a failed text may hold any word.
            head, _, failed = stages.decode(prompt).strip().removesuffix("|").partition("|")
            problem = problems[head.split(":")[0].removeprefix("repair").strip()]
            text = self.task.repair(problem, failed, rng)
            tokens = stages.encode(text)
            return Completion(tokens, np.zeros(len(tokens), np.float32), text, False, 0)

        def sample(prompts, *, stage, num_samples, **options):
            if stage != "repair":
                return stages.sample(prompts, stage=stage, num_samples=num_samples, **options)
            return [[repaired(prompt)] * num_samples for prompt in prompts]

        return super().build(groups, dataclasses.replace(stages, sample=sample), rng)


def run_job(job: tuple[str, str, list[str]]) -> str:
    """One run, in a process of its own."""
    folder, file, overrides = job
    config = config_lib.load(file, overrides)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut off
    own = pathlib.Path(folder).parent.name == name_of(TASKS_REPAIRS)
    train.train(
        config,
        method=TasksRepairs(config) if own else None,
        writers=[metrics.JsonlWriter(f"{folder}/metrics.jsonl")],
    )
    return folder


def is_complete(job: tuple[str, str, list[str]]) -> bool:
    """Whether a run has left its policy."""
    return (pathlib.Path(job[0]) / "policy").exists()


def curve(folder: pathlib.Path) -> dict[str, list[float]]:
    """Columns of one run: updates, tokens, seconds, accuracies; and the process figures of every update."""
    lines = metrics.read_metrics(folder / "metrics.jsonl")
    evaluated = [line for line in lines if evaluate.accuracies(line)]
    columns = {
        "updates": [line["update"] for line in evaluated],
        "tokens": [line.get("perf/generated_tokens", 0.0) for line in evaluated],
        "seconds": [line.get("perf/seconds", 0.0) for line in evaluated],
        "sampled": [evaluate.accuracies(line)[0] for line in evaluated],
        "greedy": [evaluate.accuracies(line)[1] for line in evaluated],
    }
    for name in PROCESS:
        columns[name] = [line.get(name) for line in lines[1:]]
    return columns


def merge_order(modulus: int, prompt: str, text: str) -> tuple[int, ...] | None:
    """Positions that a right derivation merged, one after the other; None for a wrong one."""
    line, order = [int(word) for word in prompt.split()], []
    for part in text.split(";")[:-1]:
        words = part.split()
        shown = [int(word) if word.isdigit() else -1 for word in words]
        merges = (
            p
            for p in range(len(line) - 1)
            if shown == [*line[:p], (line[p] + line[p + 1]) % modulus, *line[p + 2 :]]
        )
        position = next(merges, None)
        if position is None:
            return None
        order.append(position)
        line = shown
    return tuple(order)


def order_entropy(folder: pathlib.Path, config: ml_collections.ConfigDict) -> float:
    """Entropy in nats of the merge orders in right derivations; log (length - 1)! where all are used alike."""
    config = config_lib.override(config, [f"model.source={folder}", f"run_dir={folder}"])
    run = parts.make_run(config)
    problems = run.task.batch(config.eval.seed, 1, 64)
    tokenizer = run.policy.tokenizer
    prompts = [tokenizers.encode_prompt(tokenizer, run.task.policy_prompt(p)) for p in problems]
    groups = run.engine.sample(
        run.policy.params, jax.random.key(0), prompts, stage="orders", num_samples=8
    )
    orders = [
        merge_order(config.task.modulus, problem.prompt, completion.text)
        for problem, group in zip(problems, groups, strict=True)
        for completion in group
    ]
    counts = np.array(list(collections.Counter(o for o in orders if o).values()))
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def hacked_repairs(folders: list[pathlib.Path]) -> tuple[int, list[dict]]:
    """Number of logged pairs that were trained, and those whose repair has the right answer but a wrong step."""
    pairs = [
        record
        for folder in folders
        for file in sorted(folder.glob("rollouts/*.jsonl"))
        for record in map(json.loads, file.read_text().splitlines())
        if record["kind"] == "pair" and record.get("status", "accepted") == "accepted"
    ]
    return len(pairs), [p for p in pairs if p["repaired_first_error"] != -1]


def print_hacked(folders: list[pathlib.Path], shown: int = 3) -> None:
    """Share of hacked repairs among the logged pairs, and the first few of them."""
    count, hacked = hacked_repairs(folders)
    print(
        f"{len(hacked)} of {count} logged repairs have the right answer but a wrong step; such as"
    )
    for pair in hacked[:shown]:
        failed, repaired = (
            " ".join(pair[side]["tokens"]).strip() for side in ("failed", "repaired")
        )
        print(
            f"{pair['problem']} (answer {pair['gold']}): {failed} -> {repaired}"
            f"  first wrong step {pair['repaired_first_error']}"
        )


def mean_curve(curves: list[dict], against: str, grid: np.ndarray) -> np.ndarray:
    """Mean over seeds of temperature-1 accuracy, interpolated onto `grid`."""
    return np.mean([np.interp(grid, c[against], c["sampled"]) for c in curves], axis=0)


def first_reaching(curves: list[dict], against: str, target: float) -> float | None:
    """Where the mean curve first reaches `target`, a finished run counting with its last value; None: never."""
    end = max(c[against][-1] for c in curves)
    grid = np.linspace(0, end, 2001)
    reached = np.nonzero(mean_curve(curves, against, grid) >= target - 1e-9)[0]
    return float(grid[reached[0]]) if len(reached) else None


def summarise(arms: dict[str, list[dict]]) -> dict[str, dict]:
    """What the table shows of each arm."""
    finals = {arm: [c["sampled"][-1] for c in curves] for arm, curves in arms.items()}
    # GSPO's, at the better of its rates.
    target = max(compare.mean_std(f)[0] for arm, f in finals.items() if arm.startswith("GSPO"))
    same_updates = min(c["updates"][-1] for curves in arms.values() for c in curves)
    out = {}
    for arm, curves in arms.items():
        out[arm] = {
            "start": compare.mean_std([c["sampled"][0] for c in curves]),
            "start_greedy": compare.mean_std([c["greedy"][0] for c in curves]),
            "at_updates": same_updates,
            "at_equal_updates": compare.mean_std(
                [float(np.interp(same_updates, c["updates"], c["sampled"])) for c in curves]
            ),
            "at_equal_updates_greedy": compare.mean_std(
                [float(np.interp(same_updates, c["updates"], c["greedy"])) for c in curves]
            ),
            "final": compare.mean_std(finals[arm]),
            "final_greedy": compare.mean_std([c["greedy"][-1] for c in curves]),
            "updates": compare.mean_std([c["updates"][-1] for c in curves]),
            "tokens": compare.mean_std([c["tokens"][-1] for c in curves]),
            "seconds": compare.mean_std([c["seconds"][-1] for c in curves]),
            "updates_to_target": first_reaching(curves, "updates", target),
            "tokens_to_target": first_reaching(curves, "tokens", target),
            "process_start": process_mean(curves, slice(0, 3)),
            "process_end": process_mean(curves, slice(-3, None)),
        }
    return out


def process_mean(curves: list[dict], updates: slice) -> dict[str, float]:
    """Mean of each process figure over seeds and the given updates."""
    found = {}
    for name in PROCESS:
        values = [v for c in curves for v in c[name][updates] if v is not None]
        if values:
            found[name] = statistics.fmean(values)
    return found


def print_table(summary: dict[str, dict]) -> None:
    """Markdown, as the README shows it."""
    some = next(iter(summary.values()))
    print(
        f"| run | start | after {some['at_updates']} updates | at the token budget | its updates"
        " | to GSPO's final accuracy | entropy of merge orders |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for arm, s in summary.items():
        reached = "never"
        if s["updates_to_target"] is not None and s["tokens_to_target"] is not None:
            reached = f"{math.ceil(s['updates_to_target'])} updates"
            reached += f", {s['tokens_to_target'] / 1e3:.0f}k tokens"
        print(
            f"| {arm} | {cell(s, 'start')} | {cell(s, 'at_equal_updates')} | {cell(s, 'final')}"
            f" | {s['updates'][0]:.0f} | {reached} | {s['order_entropy'][0]:.2f} |"
        )


def print_process(summary: dict[str, dict]) -> None:
    """Process figures of the first and the last three updates."""
    print("| run | " + " | ".join(PROCESS.values()) + " |")
    print("| --- |" + " --- |" * len(PROCESS))
    for arm, s in summary.items():
        if s["process_start"]:
            cells = (
                f"{s['process_start'].get(n, math.nan):.2f} → {s['process_end'].get(n, math.nan):.2f}"
                for n in PROCESS
            )
            print(f"| {arm} | " + " | ".join(cells) + " |")


def cell(summary: dict, name: str) -> str:
    """mean ± std at temperature 1, and greedy."""
    (mean, std), (greedy, greedy_std) = summary[name], summary[f"{name}_greedy"]
    return f"{mean:.2f} ± {std:.2f} ({greedy:.2f} ± {greedy_std:.2f})"


def plot(arms: dict[str, list[dict]], luck: float, path: pathlib.Path) -> None:
    """Accuracy against updates and tokens, and the process figures; mean and range over seeds."""
    from matplotlib import figure

    page = figure.Figure(figsize=(13, 7), layout="constrained")
    axes = page.subplots(2, 4).ravel()
    colours = ("#555555", "#0b6e4f", "#2f80ed", "#d1495b", "#edae49", "#9b8bb4", "#aaaaaa")
    for (arm, curves), colour in zip(arms.items(), itertools.cycle(colours), strict=False):
        for axis, against in zip(axes[:3], ("updates", "tokens", "seconds"), strict=True):
            grid = np.linspace(0, min(c[against][-1] for c in curves), 100)
            lines = [np.interp(grid, c[against], c["sampled"]) for c in curves]
            shown = grid / 1e3 if against == "tokens" else grid
            axis.plot(shown, np.mean(lines, axis=0), color=colour, label=arm)
            axis.fill_between(shown, np.min(lines, 0), np.max(lines, 0), color=colour, alpha=0.15)
            axis.set_xlabel({"tokens": "generated tokens, thousands"}.get(against, against))
        for axis, name in zip(axes[3:], PROCESS, strict=True):
            length = min(len(c[name]) for c in curves)
            rows = np.array([c[name][:length] for c in curves], float)
            if length and np.isfinite(rows).any():
                axis.plot(np.arange(1, length + 1), np.nanmean(rows, axis=0), color=colour)
            axis.set_xlabel("updates")
    for axis in axes[:3]:
        axis.axhline(luck, color="black", linewidth=0.8, linestyle=":")
        axis.set_ylabel("accuracy, temperature 1")
        axis.set_ylim(0, 1)
    for axis, title in zip(axes[3:], PROCESS.values(), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_ylim(0, 1.02)
    lines, names = axes[0].get_legend_handles_labels()
    page.legend(lines, names, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    page.savefig(path, dpi=110)


def print_sweep(jobs: dict[str, tuple[str, list[str]]]) -> None:
    """Final accuracy of every learning rate, seeds averaged."""
    found: dict[str, list[dict]] = {}
    for folder in map(pathlib.Path, jobs):
        found.setdefault(folder.parent.name, []).append(curve(folder))
    print("| run | temperature 1 | greedy |\n| --- | --- | --- |")
    for name, curves in found.items():
        final, greedy = (
            compare.mean_std([c[k][-1] for c in curves])[0] for k in ("sampled", "greedy")
        )
        print(f"| {name} | {final:.3f} | {greedy:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sweep", action="store_true", help="learning rates instead of arms")
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each")
    parser.add_argument("--tokens", type=int, default=0, help="generated tokens of a run")
    parser.add_argument("--eval-every", type=int, default=3)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/learning"))
    parser.add_argument("--out", type=pathlib.Path, help="write OUT.json and OUT.png")
    options = parser.parse_args()
    suffix, tokens = SETTINGS[options.setting]
    start = options.runs / options.setting / "start"
    if not (start / "policy").exists():
        begun = (start / "config.json").exists()
        sft.sft(config_lib.load(CONFIGS / f"sft_{suffix}.py", [f"run_dir={start}"]), resume=begun)
    jobs = jobs_of(options)
    compare.run_all([(f, *job) for f, job in jobs.items()], options.workers, run_job, is_complete)
    if options.sweep:
        print_sweep(jobs)
        return
    arms = {
        arm: [curve(folder_of(options, arm, seed)) for seed in seeds_of(options)]
        for arm in arms_of(options)
    }
    summary = summarise(arms)
    config = config_lib.load(CONFIGS / f"gspo_{suffix}.py")
    at_start = order_entropy(start / "policy", config)
    for arm in arms:
        folders = [folder_of(options, arm, seed) for seed in seeds_of(options)]
        summary[arm]["order_entropy"] = compare.mean_std(
            [order_entropy(folder / "policy", config) for folder in folders]
        )
    print_table(summary)
    print(f"entropy of merge orders at the start: {at_start:.2f} nats")
    print_process(summary)
    unaudited = [folder_of(options, "IOP without audit", seed) for seed in seeds_of(options)]
    print_hacked(unaudited)
    if options.out:
        modulus = config.task.modulus
        about = {
            "command": f"python benchmarks/learning.py {options.setting} --seeds {options.seeds}",
            "generated_tokens": options.tokens or tokens,
            "luck": 1 / modulus,
            "order_entropy_at_start": at_start,
            "device": jax.devices()[0].device_kind,
            "machine": platform.machine(),
            "jax": jax.__version__,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        result = json.dumps({**about, "arms": summary, "curves": arms}, indent=1)
        options.out.with_suffix(".json").write_text(result + "\n")
        plot(arms, 1 / modulus, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
