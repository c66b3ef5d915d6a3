"""The run folder of a config with phases: what the phases left in theirs, put together as one run.

Host side. Reads: run_dir/phase_k/. Writes: metrics.jsonl, eval/ and policy/ of run_dir.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from typing import Any

import jax
import ml_collections

from jaxrl_reason import config as config_lib
from jaxrl_reason import files, metrics

_TOTALS = ("update", "perf/generated_tokens", "perf/trained_tokens", "perf/seconds")


def join(config: ml_collections.ConfigDict) -> None:
    """Write the whole's files anew, so that reports and evaluations take it for one run; the policy comes last.

    Args:
      config: with phases that are all complete.
    """
    if jax.process_index():
        return
    folder = pathlib.Path(config.run_dir)
    parts = [pathlib.Path(phase.run_dir) for phase in config_lib.phases(config)]
    lines, offset = joined([metrics.read_metrics(part / "metrics.jsonl") for part in parts])
    files.replace_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    (folder / "eval").mkdir(exist_ok=True)
    for path in (parts[-1] / "eval").glob("update_*.json"):
        record = json.loads(path.read_text())
        record["update"] += offset
        name = f"update_{record['update']}.json"
        files.replace_text(folder / "eval" / name, json.dumps(record) + "\n")
    copy = folder / "policy.tmp"
    for old in (copy, folder / "policy"):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(parts[-1] / "policy", copy)
    os.replace(copy, folder / "policy")


def joined(parts: list[list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], int]:
    """Metrics of phases as those of one run: updates, tokens and seconds go on where the phase before ended.

    Args:
      parts: lines of each phase, from `metrics.read_metrics`.
    Returns:
      (lines, updates before the last phase). The evaluation before a phase's first update joins the line before it.
    Example:
      >>> phase = [{"update": 0, "x": 1.0}, {"update": 1, "x": 2.0, "perf/seconds": 3.0}]
      >>> joined([phase, phase])[0][1:]
      [{'update': 1, 'x': 1.0, 'perf/seconds': 3.0}, {'update': 2, 'x': 2.0, 'perf/seconds': 6.0}]
    """
    by_update: dict[int, dict[str, Any]] = {}
    before = dict.fromkeys(_TOTALS, 0)
    for lines in parts:
        start = dict(before)
        for line in lines:
            moved = {k: v + start[k] if k in start else v for k, v in line.items()}
            by_update.setdefault(moved["update"], {}).update(moved)
            before |= {k: moved[k] for k in _TOTALS if k in moved}
    return [by_update[update] for update in sorted(by_update)], int(start["update"])
