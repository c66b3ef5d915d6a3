"""The first quarter of an hour: cold start, then IOP and GSPO from the same start at equal generated tokens, a report.

Host side; drives the device. Reads: configs/. Writes: one folder with three runs and report.html.
"""

from __future__ import annotations

import pathlib
import shutil
import sys
import time

import rich.console
import rich.table

from jaxrl_reason import config as config_lib
from jaxrl_reason import evaluate, metrics, report, sft, train

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
ARMS = {"IOP": "iop_arithmetic.py", "GSPO": "gspo_arithmetic.py"}
GENERATED_TOKENS = 120_000  # per arm; repairs and audits counted. GSPO ends below 0.9 with it


def main(run_dir: str = "runs/demo", *, generated_tokens: int = GENERATED_TOKENS) -> pathlib.Path:
    """Run the demo; returns the path of the report.

    Args:
      run_dir: folder of the demo; what an earlier demo left there is replaced.
      generated_tokens: budget of each arm.
    Raises:
      FileNotFoundError: the package is not run from a clone, so configs/ is missing.
      FileExistsError: `run_dir` holds something that is no demo.
    """
    console = rich.console.Console(highlight=False)
    folder = pathlib.Path(run_dir)
    _clear(folder)
    started = time.perf_counter()
    console.rule("1 of 3: cold start (policy mode and repair mode)")
    start = sft.sft(config_lib.load(CONFIGS / "sft_arithmetic.py", [f"run_dir={folder}/start"]))
    _end_if_stopped(start)
    runs = {}
    for number, (name, file) in enumerate(ARMS.items(), 2):
        console.rule(f"{number} of 3: {name}, {generated_tokens:,} generated tokens")
        overrides = [
            f"run_dir={folder}/{name.lower()}",
            f"model.source={start}",
            f"train.max_generated_tokens={generated_tokens}",
            "eval.every=3",
        ]
        runs[name], _ = train.train(config_lib.load(CONFIGS / file, overrides))
        _end_if_stopped(runs[name] / "policy")
    page = report.write_report(list(runs.values()), folder / "report.html")
    console.print(table(runs))
    minutes = (time.perf_counter() - started) / 60
    console.print(f"{minutes:.1f} minutes. Report, to open in a browser: {page.resolve()}")
    return page


def _end_if_stopped(policy: pathlib.Path) -> None:
    """End the program where a signal ended one of its runs, which then left no policy."""
    if not policy.exists():
        sys.exit(0)


def table(runs: dict[str, pathlib.Path]) -> rich.table.Table:
    """Accuracy before and after, and what it cost, one line per run."""
    out = rich.table.Table(title="Accuracy on fixed problems, temperature 1 (greedy)")
    for heading in ("", "start", "end", "updates", "generated tokens", "seconds"):
        out.add_column(heading, justify="left" if not heading else "right")
    for name, folder in runs.items():
        lines = metrics.read_metrics(folder / "metrics.jsonl")
        evaluated = [line for line in lines if evaluate.accuracies(line)]
        first, last = evaluated[0], evaluated[-1]
        out.add_row(
            name,
            _accuracy(first),
            _accuracy(last) if last is not first else "not evaluated",
            str(lines[-1]["update"]),
            f"{lines[-1]['perf/generated_tokens']:,.0f}",
            f"{lines[-1]['perf/seconds']:.0f}",
        )
    return out


def _accuracy(line: dict) -> str:
    sampled, greedy = evaluate.accuracies(line)
    return f"{sampled:.3f} ({greedy:.3f})"


def _clear(folder: pathlib.Path) -> None:
    parts = {"start", "report.html", *(name.lower() for name in ARMS)}
    if not folder.exists():
        return
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in parts)
    if foreign:
        raise FileExistsError(
            f"{folder} holds {', '.join(foreign)}, which no demo wrote; choose another folder"
        )
    shutil.rmtree(folder)
