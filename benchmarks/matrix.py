"""All methods from one start at equal generated tokens, where right answers are frequent and where they are rare.

Host side; drives the device. Reads: configs/. Writes: runs below --runs; a table on standard output, JSON and a plot
to --out.

Usage: python benchmarks/matrix.py [frequent] [rare] [--seeds 3] [--workers 2] [--out benchmarks/results/matrix]

The tuning budget is the same for all: one run at each of the learning rates below, on a seed and on evaluation problems
of its own; the better rate enters the table. A run that is complete is not repeated, one that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform

import jax

from jaxrl_reason import compare, metrics, prm_training, sft
from jaxrl_reason import config as config_lib

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
# Overrides of the cold start, and of all runs.
SETTINGS = {
    "frequent": ([], []),
    "rare": (["sft.policy_updates=780", "sft.repair_updates=1400"], ["task.modulus=30"]),
}
# Where a method's credit comes from.
OUTCOME, ORACLE, OWN, REPAIRS, EXPERT = (
    "outcome",
    "outcome, step oracle",
    "outcome, own generations or a reward model",
    # The repair mode of the shared start: the task wrote what it was taught, and no other method uses it.
    "outcome, own repairs in a mode that the task's repairs taught",
    "expert solutions",
)
METHODS = {
    "gspo": OUTCOME,
    "grpo": OUTCOME,
    "dr_grpo": OUTCOME,
    "dapo": OUTCOME,
    "rloo": OUTCOME,
    "reinforce_pp": OUTCOME,
    "reinforce_pp_baseline": OUTCOME,
    "ppo": OUTCOME,
    "prime": OUTCOME,
    "iop": REPAIRS,
    "vppo_mc": OWN,
    "vppo_prm": OWN,
    "vppo": ORACLE,
    "cliff": ORACLE,
    "grpo_process": ORACLE,
    "mixed": ORACLE,
    "rts": ORACLE,
    "srl": EXPERT,
    "srl_then_rlvr": EXPERT,
}
LEARNING_RATES = (5e-4, 1e-3)
SWEEP_SEED, TABLE_SEED, TABLE_EVAL_SEED = 100, 10, 3_000_017


def job(
    options: argparse.Namespace, setting: str, method: str, seed: int, rate: float, *, sweep: bool
) -> compare.Job:
    """One run of a method."""
    base = options.runs / setting
    folder = base / ("sweep" if sweep else "table") / f"{method}_{rate:g}" / f"seed{seed}"
    overrides = [
        *SETTINGS[setting][1],
        f"model.source={base}/start/policy",
        f"locate.prm_path={base}/prm/prm",
        f"optim.learning_rate={rate}",
        f"train.max_generated_tokens={options.tokens // (2 if sweep else 1)}",
        # Of a first phase; a single one, or the last, is ended by its tokens.
        f"train.num_updates={3 if sweep else 6}",
        "train.checkpoint_every=100000",
        "train.tensorboard=False",
        f"eval.every={0 if sweep else 3}",
        *([] if sweep else [f"eval.seed={TABLE_EVAL_SEED}"]),
        f"seed={seed}",
        f"run_dir={folder}",
    ]
    return compare.Job(str(folder), str(CONFIGS / f"{method}_arithmetic.py"), tuple(overrides))


def prepare(options: argparse.Namespace, setting: str) -> None:
    """The start of a setting and the process reward model of its start, where they are missing."""
    base, (cold, shared) = options.runs / setting, SETTINGS[setting]
    if not (base / "start" / "policy").exists():
        given = [*shared, *cold, f"run_dir={base}/start"]
        begun = (base / "start" / "config.json").exists()
        sft.sft(config_lib.load(CONFIGS / "sft_arithmetic.py", given), resume=begun)
    if not (base / "prm" / "prm").exists():
        given = [*shared, f"model.source={base}/start/policy", f"run_dir={base}/prm"]
        begun = (base / "prm" / "config.json").exists()
        prm_training.train_prm(config_lib.load(CONFIGS / "prm_arithmetic.py", given), resume=begun)


def run_all(options: argparse.Namespace, jobs: list[compare.Job]) -> None:
    """All runs that are missing."""
    compare.run_all(jobs, options.workers, compare.run_job, compare.is_done)


def sweep(options: argparse.Namespace, setting: str) -> dict[str, dict[float, float]]:
    """{method: {learning rate: accuracy at temperature 1 at half the tokens}}."""
    jobs = {
        (method, rate): job(options, setting, method, SWEEP_SEED, rate, sweep=True)
        for method in options.methods
        for rate in LEARNING_RATES
    }
    run_all(options, list(jobs.values()))
    found: dict[str, dict[float, float]] = {}
    for (method, rate), one in jobs.items():
        accuracy = float(compare.solved(pathlib.Path(one.folder))[1].mean())
        found.setdefault(method, {})[rate] = accuracy
    return found


def measure(options: argparse.Namespace, setting: str) -> dict[str, dict]:
    """{method: what `compare.summarise` says, its sweep, and each seed's result}."""
    prepare(options, setting)
    swept = sweep(options, setting)
    rates = {method: max(found, key=found.get) for method, found in swept.items()}
    jobs = {
        method: [
            job(options, setting, method, TABLE_SEED + i, rates[method], sweep=False)
            for i in range(options.seeds)
        ]
        for method in options.methods
    }
    run_all(options, [one for arm in jobs.values() for one in arm])
    arms = {m: [pathlib.Path(one.folder) for one in arm] for m, arm in jobs.items()}
    table = compare.summarise(arms)
    for method, folders in arms.items():
        lines = [metrics.read_metrics(folder / "metrics.jsonl") for folder in folders]
        table[method] |= {
            "credit": METHODS[method],
            "sweep": {f"{rate:g}": accuracy for rate, accuracy in swept[method].items()},
            "learning_rate": rates[method],
            "finals": [float(compare.solved(folder)[1].mean()) for folder in folders],
            # Groups whose rewards are all the same, of the first update.
            "equal_at_first": sum(rows[1]["reward/frac_zero_std"] for rows in lines) / len(lines),
        }
    return table


def print_table(settings: dict[str, dict[str, dict]]) -> None:
    """Markdown, as the README shows it."""
    names = list(settings)
    print("| method | credit from |" + "".join(f" {n} | its updates | rate |" for n in names))
    print("| --- | --- |" + " --- | --- | --- |" * len(names))
    for method, credit in METHODS.items():
        if not any(method in table for table in settings.values()):
            continue
        cells = []
        for table in settings.values():
            if method in table:
                arm = table[method]
                mean, std = arm["sampled"]
                greedy = arm["greedy"][0]
                cells += [f"{mean:.2f} ± {std:.2f} ({greedy:.2f})", f"{arm['updates'][0]:.0f}"]
                cells += [f"{arm['learning_rate']:g}"]
            else:
                cells += ["", "", ""]
        print(f"| `{method}` | {credit} | " + " | ".join(cells) + " |")


def plot(settings: dict[str, dict[str, dict]], path: pathlib.Path) -> None:
    """One panel per setting: a row per method, a dot per seed, a bar at the mean, the start dotted."""
    from matplotlib import figure

    colours = dict(
        zip(
            (OUTCOME, OWN, REPAIRS, ORACLE, EXPERT),
            ("#555555", "#0b6e4f", "#e0a100", "#2f80ed", "#d1495b"),
            strict=True,
        )
    )
    page = figure.Figure(figsize=(12, 6.5), layout="constrained")
    axes = page.subplots(1, len(settings), sharey=True, squeeze=False)[0]
    for axis, (setting, table) in zip(axes, settings.items(), strict=True):
        for row, method in enumerate(reversed(table)):
            arm = table[method]
            axis.barh(row, arm["sampled"][0], color=colours[arm["credit"]], alpha=0.35, height=0.7)
            axis.plot(
                arm["finals"], [row] * len(arm["finals"]), "o", color=colours[arm["credit"]], ms=4
            )
        start = next(iter(table.values()))["start"][0]
        axis.axvline(start, color="black", linewidth=0.8, linestyle=":")
        axis.set_yticks(range(len(table)), list(reversed(table)))
        axis.set_title(f"right answers {setting}; start {start:.2f} (dotted)", fontsize=10)
        axis.set_xlabel("accuracy, temperature 1")
        axis.set_xlim(0, 1)
        axis.spines[["top", "right"]].set_visible(False)
    for credit, colour in colours.items():
        axes[0].plot([], [], "o", color=colour, label=f"credit from {credit}")
    page.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    page.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", default=list(SETTINGS), metavar="|".join(SETTINGS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=100_000, help="generated, of one run")
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/matrix"))
    parser.add_argument("--out", type=pathlib.Path, help="write OUT.json and OUT.png")
    options = parser.parse_args()
    unknown = sorted(set(options.settings) - set(SETTINGS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: settings are {', '.join(SETTINGS)}")
    settings = {setting: measure(options, setting) for setting in options.settings}
    print_table(settings)
    if options.out:
        about = {
            "command": f"python benchmarks/matrix.py {' '.join(options.settings)}",
            "seeds": options.seeds,
            "generated_tokens": options.tokens,
            "learning_rates": LEARNING_RATES,
            "device": jax.devices()[0].device_kind,
            "machine": platform.machine(),
            "jax": jax.__version__,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        result = json.dumps(about | {"settings": settings}, indent=1)
        options.out.with_suffix(".json").write_text(result + "\n")
        plot(settings, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
