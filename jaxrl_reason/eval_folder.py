"""The folder of an evaluation: records of whole blocks, so that one that was killed goes on to the same bytes.

Host side. Reads, writes: the folder.

| file | holds |
| --- | --- |
| `settings.json` | what decides the records: task, budgets, seeds, digest of the parameters |
| `<task>.jsonl` | one line per problem: rewards, reasons, answers and lengths of its samples, and the greedy one |
| `<task>.texts.jsonl` | one line per completion of the first problems, see `texts`; as many as were asked for |
| `timing.jsonl` | one line per block that was computed: seconds and tokens |
| `results.json` | the figures, a function of the records alone |
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrl_reason import files
from jaxrl_reason.types import Completion, Problem, Verdict


def open_folder(
    folder: str | os.PathLike, settings: Mapping[str, Any], *, resume: bool
) -> pathlib.Path:
    """Makes the folder, or checks that it holds this very evaluation.

    Raises:
      FileExistsError: it holds an evaluation and `resume` is False.
      ValueError: it holds another one.
    """
    folder = files.local_folder(folder, "--out")
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
    files.replace_text(saved, text)
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


ALL_TEXTS = "all"


def kept_texts(folder: str | os.PathLike | None) -> int | str:
    """Of how many problems an evaluation keeps the texts, where nobody says so: as it began, and all of a new one."""
    saved = folder and pathlib.Path(folder) / "settings.json"
    if not saved or not saved.exists():
        return ALL_TEXTS
    return json.loads(saved.read_text()).get("texts", 0)


def texts(
    problem: Problem,
    prompt: str,
    draw: str,
    completions: Sequence[Completion],
    verdicts: Sequence[Verdict],
) -> list[dict[str, Any]]:
    """One line for each completion of a problem.

    Args:
      problem: gives `problem` (its id) and `gold`.
      prompt: as the policy read it, special tokens included.
      draw: sampled | greedy.
      completions: give `text` and `tokens` (their number); `sample` counts them.
      verdicts: give `answer` (as it was extracted; null: none was found), `reward` and `reason`.
    Returns:
      JSON objects.
    Example:
      >>> done = Completion((7, 8), np.zeros(2), "So 5.", False, 2)
      >>> right = Verdict(1.0, "5", "correct")
      >>> texts(Problem("p-1", "2 + 3", "5"), "2 + 3 =", "greedy", [done], [right])
      [{'problem': 'p-1', 'prompt': '2 + 3 =', 'gold': '5', 'draw': 'greedy', 'sample': 0, 'text': 'So 5.',
        'answer': '5', 'reward': 1.0, 'reason': 'correct', 'tokens': 2}]
    """
    return [
        {
            "problem": problem.id,
            "prompt": prompt,
            "gold": problem.answer,
            "draw": draw,
            "sample": number,
            "text": completion.text,
            "answer": verdict.answer,
            "reward": verdict.reward,
            "reason": verdict.reason,
            "tokens": len(completion.tokens),
        }
        for number, (completion, verdict) in enumerate(zip(completions, verdicts, strict=True))
    ]


def cut_texts(path: pathlib.Path, lines: int) -> None:
    """Cut a file of texts after so many lines: what was written behind the last whole block of records is drawn anew.

    Raises:
      ValueError: it has fewer.
    """
    if not lines and not path.exists():
        return
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
    if len(whole) < lines:
        raise ValueError(
            f"{path}: {len(whole)} lines, but there are records of {lines} completions with a text; delete the"
            " task's .jsonl to draw all anew"
        )
    os.truncate(path, sum(len(line) + 1 for line in whole[:lines]))


def append(path: pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Records to the end of a JSONL file, on the disk when this returns."""
    with open(path, "ab") as file:
        file.write("".join(json.dumps(r) + "\n" for r in records).encode())
        file.flush()
        os.fsync(file.fileno())


class Book:
    """Records and texts of one task in the folder of an evaluation; without a folder, nothing.

    Texts are written before the records that they belong to, so that a kill leaves too many of them, never too few.

    Args:
      folder: of `open_folder`; None: nothing is written.
      label: name of the task in the folder.
      ids: of all problems, in order.
      size: problems in each block but the last.
      lines: of texts for each problem.
      texts: problems whose texts are kept, the first ones; or "all".
    """

    def __init__(
        self,
        folder: pathlib.Path | None,
        label: str,
        ids: Sequence[str],
        size: int,
        lines: int,
        texts: int | str,
    ):
        self.folder, self.label, self.ids, self.size = folder, label, ids, size
        self.lines = lines
        self.texts = len(ids) if texts == ALL_TEXTS else min(int(texts), len(ids))

    def read(self) -> list[dict[str, Any]]:
        """Records of the whole blocks that are there; what stands behind them is cut off."""
        if self.folder is None:
            return []
        records = read_blocks(self._path(""), self.size, self.ids)
        cut_texts(self._path(".texts"), min(len(records), self.texts) * self.lines)
        return records

    def write(self, start: int, block: Sequence, written: Sequence, timing: Mapping) -> None:
        """A block whose first problem is number `start`."""
        if self.folder is None:
            return
        kept = written[: max(self.texts - start, 0) * self.lines]
        if kept:
            append(self._path(".texts"), kept)
        append(self._path(""), block)
        append(self.folder / "timing.jsonl", [timing])

    def _path(self, kind: str) -> pathlib.Path:
        return self.folder / f"{self.label}{kind}.jsonl"


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
    files.replace_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
