"""Does the gate pay? IOP's gate x weight of repair mode x audit, and GSPO's learning rates, from one start.

Host side; drives the device. Reads: configs/, the start that benchmarks/learning.py makes. Writes: runs below --runs; a
table on standard output, JSON to --out.

Usage: python benchmarks/gate.py hard [--seeds 5] [--workers 2] [--out OUT]

Without a gate the shared prefix of a pair has advantages -1 and +1 in the same contexts: they cancel, the row's
denominator grows, and the policy stream's gradient shrinks. An ablation of the gate alone therefore changes the
balance with repair mode as well; the grid varies both. Every run has the same generated tokens, repairs and
audits counted. A run that is complete is not repeated.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform

import jax
import learning  # beside this file

from jaxrl_reason import compare, sft
from jaxrl_reason import config as config_lib

# (iop.gate, iop.repair_weight, iop.audit); the first is what configs/iop_arithmetic_hard.py ships.
GRID = [
    ("edits", 5.0, "continuation"),
    ("all", 5.0, "continuation"),
    ("all", 1.4, "continuation"),
    *((gate, weight, "none") for weight in (5.0, 1.4, 0.4) for gate in ("edits", "all")),
]
RATES = (3e-4, 5e-4, 1e-3)  # GSPO's


def arms() -> dict[str, tuple[str, list[str]]]:
    """Rows of the table: name -> (method, overrides)."""
    found = {
        f"IOP, gate {gate}, weight {weight:g}, audit {audit}": (
            "iop",
            [f"iop.gate={gate}", f"iop.repair_weight={weight}", f"iop.audit={audit}"],
        )
        for gate, weight, audit in GRID
    }
    return found | {
        f"GSPO, learning rate {rate:g}": ("gspo", [f"optim.learning_rate={rate}"]) for rate in RATES
    }


def jobs(options: argparse.Namespace) -> list[tuple[str, str, list[str]]]:
    """(run folder, config file, overrides); all arms of one seed before the next seed."""
    suffix, tokens = learning.SETTINGS[options.setting]
    start = options.runs / options.setting / "start" / "policy"
    return [
        (
            str(folder := learning.folder_of(options, arm, seed)),
            str(learning.CONFIGS / f"{method}_{suffix}.py"),
            [
                *overrides,
                f"run_dir={folder}",
                f"model.source={start}",
                f"seed={seed}",
                f"train.max_generated_tokens={options.tokens or tokens}",
                "train.num_updates=100000",
                "train.checkpoint_every=100000",
                "train.tensorboard=False",
                "eval.every=0",
                f"eval.seed={learning.TABLE_EVAL_SEED}",
            ],
        )
        for seed in learning.seeds_of(options)
        for arm, (method, overrides) in arms().items()
    ]


def summarise(options: argparse.Namespace) -> dict[str, dict]:
    """Final accuracies per seed, and what they cost."""
    out = {}
    for arm in arms():
        curves = [
            learning.curve(learning.folder_of(options, arm, seed))
            for seed in learning.seeds_of(options)
        ]
        out[arm] = {
            "start": curves[0]["sampled"][0],
            "sampled": [c["sampled"][-1] for c in curves],
            "greedy": [c["greedy"][-1] for c in curves],
            "updates": compare.mean_std([c["updates"][-1] for c in curves])[0],
            "tokens": compare.mean_std([c["tokens"][-1] for c in curves])[0],
            "seconds": compare.mean_std([c["seconds"][-1] for c in curves])[0],
        }
    return out


def print_table(summary: dict[str, dict]) -> None:
    """Markdown, as the README shows it."""
    print("| run | temperature 1 | greedy | seeds | updates | tokens |\n" + "| --- " * 6 + "|")
    for arm, found in summary.items():
        mean, std = compare.mean_std(found["sampled"])
        seeds = " ".join(f"{x:.3f}".removeprefix("0") for x in found["sampled"])
        print(
            f"| {arm} | {mean:.3f} ± {std:.3f} | {compare.mean_std(found['greedy'])[0]:.3f} | {seeds}"
            f" | {found['updates']:.0f} | {found['tokens'] / 1e3:.0f}k |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("setting", choices=learning.SETTINGS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each; 0: none")
    parser.add_argument("--tokens", type=int, default=0, help="generated tokens of a run")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/learning"))
    parser.add_argument("--out", type=pathlib.Path, help="write OUT.json")
    options = parser.parse_args()
    options.sweep = False
    suffix, tokens = learning.SETTINGS[options.setting]
    start = options.runs / options.setting / "start"
    if not (start / "policy").exists():
        sft.sft(config_lib.load(learning.CONFIGS / f"sft_{suffix}.py", [f"run_dir={start}"]))
    compare.run_all(jobs(options), options.workers, learning.run_job, learning.is_complete)
    summary = summarise(options)
    print_table(summary)
    if options.out:
        about = {
            "command": f"python benchmarks/gate.py {options.setting} --seeds {options.seeds}",
            "generated_tokens": options.tokens or tokens,
            "device": jax.devices()[0].device_kind,
            "machine": platform.machine(),
            "jax": jax.__version__,
        }
        options.out.with_suffix(".json").write_text(
            json.dumps({**about, "arms": summary}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
