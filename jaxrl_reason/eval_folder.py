"""The folder of an evaluation: records of whole blocks, so that one that was killed goes on to the same bytes.

Host side. Reads, writes: the folder.

| file | holds |
| --- | --- |
| `settings.json` | what decides the records: task, budgets, seeds, digest of the parameters |
| `<task>.jsonl` | one line per problem: rewards, reasons, answers and lengths of its samples, and the greedy one |
| `timing.jsonl` | one line per block that was computed: seconds and tokens |
| `results.json` | the figures, a function of the records alone |
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


def open_folder(
    folder: str | os.PathLike, settings: Mapping[str, Any], *, resume: bool
) -> pathlib.Path:
    """Makes the folder, or checks that it holds this very evaluation.

    Raises:
      FileExistsError: it holds an evaluation and `resume` is False.
      ValueError: it holds another one.
    """
    folder = pathlib.Path(folder)
    saved, text = folder / "settings.json", json.dumps(settings, indent=2, sort_keys=True) + "\n"
    if saved.exists():
        if not resume:
            raise FileExistsError(
                f"{folder} already holds an evaluation; go on with --resume, or choose another --out"
            )
        old = json.loads(saved.read_text())
        changed = [k for k in sorted(old.keys() | settings.keys()) if old.get(k) != settings.get(k)]
        if changed:
            lines = [f"  {k}: saved {old.get(k)!r}, now {settings.get(k)!r}" for k in changed]
            raise ValueError(
                f"{saved}: another evaluation; go on with its values, or choose another --out:\n"
                + "\n".join(lines)
            )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _replace(saved, text)
    return folder


def read_blocks(path: pathlib.Path, block: int, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Records of the blocks that are whole; what stands behind them, a partial line too, is cut off the file.

    Args:
      path: JSONL; may be missing.
      block: records in each block but the last.
      ids: of all problems, in order.
    Returns:
      Records of the first problems.
    Raises:
      ValueError: a whole line that is no record of its problem.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
    whole = len(lines) if len(lines) == len(ids) else len(lines) // block * block
    records = []
    for number, line in enumerate(lines[:whole]):
        try:
            records.append(json.loads(line))
            known = number < len(ids) and records[-1]["problem"] == ids[number]
        except (ValueError, TypeError, KeyError):
            known = False
        if not known:
            raise ValueError(
                f"{path}, line {number + 1}: not the record of its problem; delete the file to start it anew"
            )
    os.truncate(path, sum(map(len, lines[:whole])))
    return records


def append(path: pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Records to the end of a JSONL file, on the disk when this returns."""
    with open(path, "ab") as file:
        file.write("".join(json.dumps(r) + "\n" for r in records).encode())
        file.flush()
        os.fsync(file.fileno())


def read_timing(path: pathlib.Path) -> list[dict[str, Any]]:
    """Lines of `timing.jsonl`; a line that a kill cut in two is left out."""
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def write_results(folder: pathlib.Path, results: Mapping[str, float]) -> None:
    """`results.json`, whole or not at all."""
    _replace(folder / "results.json", json.dumps(results, indent=2) + "\n")


def _replace(path: pathlib.Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)
