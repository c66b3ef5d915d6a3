"""One self-contained HTML page about finished or running training runs: curves and rollouts.

Host side. Reads: config.json, metrics.jsonl, rollouts/ of run folders. Writes: report.html.

The page loads nothing from anywhere and opens from the file system. Text that a model wrote is
hostile: it enters the page only as JSON with `<`, `>` and `&` escaped, the scripts put it on the
page only as text, and a content security policy allows exactly those scripts. Look:
report_page.html, report_page.css. Behaviour: report_charts.js (drawing), report_curves.js (summary
and curves), report_viewer.js (rollouts).

Runs that differ only in seed and run_dir form one arm. Cost is read from the counters
`perf/generated_tokens`, `perf/trained_tokens` and `perf/seconds`, totals since the start of a run;
where `perf/seconds` is missing, the times of the stages (`time/generate` ...) are summed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl_reason import metrics

MAX_RECORDS = 200  # rollout records per run on the page
MAX_TOKENS = 100_000  # tokens of those records per run, about 4 MB
MAX_POINTS = 500  # points per curve and run, evaluated updates not counted
COUNTERS = {
    "tokens": "perf/generated_tokens",
    "trained": "perf/trained_tokens",
    "seconds": "perf/seconds",
}
STAGE_SECONDS = ("time/generate", "time/repair", "time/verify", "time/score", "time/update")
EVAL = re.compile(r"eval/.+/[^/]+")  # eval/<task>/<measure>
SCRIPTS = ("report_charts.js", "report_curves.js", "report_viewer.js")


def write_report(
    run_folders: Sequence[str | os.PathLike],
    out: str | os.PathLike | None = None,
    *,
    section: str = "",
) -> Path:
    """Write the page about some runs.

    Args:
      run_folders: run folders; runs that differ only in seed and run_dir are averaged.
      out: file to write; default: `report.html` in the run folder, or in the folder that several
        runs share.
      section: HTML that stands before the summary; whoever gives it has escaped its texts.
    Returns:
      Path of the page.
    Raises:
      ValueError: every folder that is not a run, in one error, with the fix.
    """
    folders = list(dict.fromkeys(Path(folder).resolve() for folder in run_folders))
    if not folders:
        raise ValueError("no run folder given; name at least one: jaxrl-reason report runs/my_run")
    problems = [problem for folder in folders for problem in _folder_problems(folder)]
    if problems:
        raise ValueError("cannot report:\n" + "\n".join(f"  {problem}" for problem in problems))
    page = render(collect(folders), section)
    out = Path(out) if out is not None else Path(os.path.commonpath(folders)) / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def collect(folders: Sequence[Path]) -> dict[str, Any]:
    """Everything the page shows, as JSON-ready data.

    Args:
      folders: run folders, all with config.json and metrics.jsonl.
    Returns:
      {"arms": [...], "runs": [...]}. An arm has `label`, `method`, `task`, `settings` (fields that
      differ between arms), `runs` (indices), `luck` (accuracy of guessing, where known) and
      `summary`. A run has `name`, `arm`, `seed`, the columns `updates`, `tokens`, `trained` and
      `seconds`, `curves` {name: column}, `records` and `records_logged`.
    Raises:
      ValueError: a run without updates, or a file that cannot be read, with its line.
    """
    configs = [_flat(json.loads((folder / "config.json").read_text("utf-8"))) for folder in folders]
    histories = [metrics.read_metrics(folder / "metrics.jsonl") for folder in folders]
    empty = [folder for folder, rows in zip(folders, histories, strict=True) if not rows]
    if empty:
        names = ", ".join(map(str, empty))
        raise ValueError(f"{names}: metrics.jsonl is empty; wait for the first update of the run")
    width = max(1, -(-max(rows[-1]["update"] for rows in histories) // MAX_POINTS))
    arms = group_arms(configs)
    arm_of = {run: index for index, arm in enumerate(arms) for run in arm["runs"]}
    runs = []
    for index, (folder, config) in enumerate(zip(folders, configs, strict=True)):
        run = {"name": folder.name, "arm": arm_of[index], "seed": config.get("seed")}
        run |= _columns(histories[index], width, folder)
        logged = _read_records(folder / "rollouts")
        run |= {"records": _spread(logged), "records_logged": len(logged)}
        runs.append(run)
    for arm in arms:
        arm["summary"] = summarise([runs[index] for index in arm["runs"]])
    return {"arms": arms, "runs": runs}


def group_arms(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Group runs by settings other than seed and run_dir; name a group by what sets it apart.

    `iop.*` says nothing about a run of another method, so it neither splits nor names one. A label
    is the method, followed by the fields in which arms of that same method differ.

    Args:
      configs: flat {dotted name: value}, one per run.
    Returns:
      Arms in the order of their first runs, without `summary`; see `collect`.
    Example:
      >>> gspo = {"method.name": "gspo", "seed": 0, "iop.audit": "replay"}
      >>> iop = gspo | {"method.name": "iop"}
      >>> arms = group_arms([gspo, iop, iop | {"seed": 1}, iop | {"iop.audit": "none"}])
      >>> [(arm["label"], arm["runs"]) for arm in arms]
      [('gspo', [0]), ('iop, audit=replay', [1, 2]), ('iop, audit=none', [3])]
    """
    groups: dict[str, dict[str, Any]] = {}
    for index, config in enumerate(configs):
        method = str(config.get("method.name", "run"))
        settings = {
            name: value
            for name, value in config.items()
            if name not in ("seed", "run_dir") and (method == "iop" or not name.startswith("iop."))
        }
        key = json.dumps(settings, sort_keys=True)
        arm = groups.setdefault(key, {"method": method, "all": settings, "runs": []})
        arm["runs"].append(index)
    arms = list(groups.values())
    differing = _differing([arm["all"] for arm in arms])
    for arm in arms:
        fields = _differing([peer["all"] for peer in arms if peer["method"] == arm["method"]])
        words = [f"{_short(name, fields)}={_text(arm['all'].get(name))}" for name in fields]
        arm["label"] = ", ".join([arm["method"], *words])
        arm["settings"] = {
            name: _text(arm["all"][name]) for name in differing if name in arm["all"]
        }
        arm["task"] = arm["all"].get("task.name")
        arm["luck"] = _luck(arm["all"])
    return [{name: value for name, value in arm.items() if name != "all"} for arm in arms]


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Start, end and cost of one arm, each as [mean, sample std or None, number of seeds].

    Args:
      runs: the arm's entries of `collect(...)["runs"]`.
    Returns:
      {"updates", "tokens", "trained", "seconds": triple or None, "eval": {name: {"first", "last": triple or None}}};
      first and last are each run's own first and last evaluation. A run that was evaluated once has only one of the
      two: its first if that was before any update, else its last.
    """
    summary: dict[str, Any] = {
        name: _mean_std([run[name][-1] for run in runs if run[name]])
        for name in ("updates", *COUNTERS)
    }
    summary["eval"] = {}
    for name in sorted({name for run in runs for name in run["curves"] if EVAL.fullmatch(name)}):
        ends = [_first_and_last(run, name) for run in runs]
        summary["eval"][name] = {
            which: _mean_std([pair[i] for pair in ends if pair[i] is not None])
            for i, which in enumerate(("first", "last"))
        }
    return summary


def _first_and_last(run: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    column = run["curves"].get(name, [])
    found = [(u, y) for u, y in zip(run["updates"], column, strict=False) if y is not None]
    if len(found) < 2:
        alone = found[0][1] if found else None
        return (alone, None) if found and found[0][0] == 0 else (None, alone)
    return found[0][1], found[-1][1]


def render(data: Mapping[str, Any], section: str = "") -> str:
    """The page as HTML, from what `collect` returned; `section` stands before the summary."""
    package = importlib.resources.files("jaxrl_reason")
    style = (package / "report_page.css").read_text("utf-8")
    scripts = [(package / name).read_text("utf-8") for name in SCRIPTS]
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {' '.join(map(_hash, scripts))}"
    )
    marks = {
        "policy": policy,
        "style": style,
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
        "section": section,
        "data": escape_json(data),
    }
    page = (package / "report_page.html").read_text("utf-8")
    # In one pass: the data may hold the text of any mark.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: marks[match.group(1)], page)


def escape_json(data: Any) -> str:
    """JSON that no HTML parser can leave or misread: ASCII, with `<`, `>` and `&` escaped.

    Example:
      >>> print(escape_json("</script>"))
      "\\u003c/script\\u003e"
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _folder_problems(folder: Path) -> list[str]:
    if not folder.is_dir():
        return [f"{folder}: no such folder; name the run_dir of a training run"]
    for name in ("metrics.jsonl", "config.json"):
        if not (folder / name).is_file():
            inside = sorted(path.parent.name for path in folder.glob("*/metrics.jsonl"))
            fix = f"name the runs in it: {', '.join(inside[:3])}" if inside else "name a run_dir"
            return [f"{folder}: no {name}, so this is not a run folder; {fix}"]
    try:
        json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError as error:
        return [f"{folder}: config.json is not JSON ({error}); restore it"]
    return []


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields with several values among the settings that have them."""
    values: dict[str, set[str]] = {}
    for setting in settings:
        for name, value in setting.items():
            values.setdefault(name, set()).add(json.dumps(value, sort_keys=True))
    return [name for name, found in values.items() if len(found) > 1]


def _short(name: str, among: Sequence[str]) -> str:
    last = name.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in among) == 1 else name


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"  # without the dust of binary fractions: 0.3, not 0.30000000000000004
    return value if isinstance(value, str) else json.dumps(value)


def _luck(settings: Mapping[str, Any]) -> float | None:
    """Accuracy of a uniform guess: an arithmetic answer is one of `modulus` numbers."""
    if settings.get("task.name") == "arithmetic" and settings.get("task.modulus"):
        return 1 / settings["task.modulus"]
    return None


def _mean_std(values: Sequence[float | int]) -> list[float | int | None] | None:
    if not values:
        return None
    std = _round(statistics.stdev(values)) if len(values) > 1 else None
    return [_round(statistics.fmean(values)), std, len(values)]


def _round(value: float | int) -> float:
    return float(f"{value:.6g}")


def _columns(rows: Sequence[Mapping[str, Any]], width: int, folder: Path) -> dict[str, Any]:
    """Columns of one run, averaged over `width` updates; an evaluated update ends its bucket."""
    totals = {short: _running_total(rows, short, folder) for short in COUNTERS}
    names = sorted({name for row in rows for name in row} - {"update", *COUNTERS.values()})
    buckets: dict[tuple[int, int], list[int]] = {}
    evaluations = 0
    for index, row in enumerate(rows):
        buckets.setdefault((evaluations, (row["update"] - 1) // width), []).append(index)
        evaluations += any(EVAL.fullmatch(name) for name in row)
    ends = [bucket[-1] for bucket in buckets.values()]
    columns: dict[str, Any] = {"updates": [rows[end]["update"] for end in ends]}
    columns |= {short: [total[end] for end in ends] for short, total in totals.items() if total}
    columns |= {short: [] for short, total in totals.items() if not total}
    columns["curves"] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if all(isinstance(value, (int, float, type(None))) for value in values):
            pooled = [_pooled([values[index] for index in bucket]) for bucket in buckets.values()]
            columns["curves"][name] = pooled
    return columns


def _pooled(values: Sequence[float | int | None]) -> float | None:
    present = [value for value in values if value is not None]
    return _round(statistics.fmean(present)) if present else None


def _running_total(rows: Sequence[Mapping[str, Any]], short: str, folder: Path) -> list[float]:
    """A counter at every row, [] where nothing was counted; a row without it keeps the last."""
    name, column, total = COUNTERS[short], [], 0
    summed = short == "seconds" and not any(name in row for row in rows)
    for row in rows:
        value = row.get(name)
        if summed:
            value = total + sum(row.get(stage) or 0 for stage in STAGE_SECONDS)
        if value is not None and value < total:
            raise ValueError(
                f"{folder}: {name} falls from {total:g} to {value:g} at update {row['update']};"
                " it must be the total since the start of the run: correct those lines"
            )
        total = total if value is None else value
        column.append(_round(total))
    return column if total else []


def _read_records(folder: Path) -> list[dict[str, Any]]:
    """All rollout records of one run, by update; a half-written last line is left out."""
    records = []
    for path in folder.glob("update_*.jsonl"):
        lines = path.read_text("utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                records.append(_record(json.loads(line, parse_constant=lambda _: None)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if number == len(lines):
                    break
                raise ValueError(
                    f"{path}, line {number}: not a rollout record ({error!r}); remove the line"
                ) from None
    return sorted(records, key=lambda record: record["update"])


def _spread(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most MAX_RECORDS records and about MAX_TOKENS tokens, spread evenly over the updates."""
    by_update: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        by_update.setdefault(record["update"], []).append(record)
    groups = list(by_update.values())
    if len(groups) > MAX_RECORDS:
        groups = [groups[i * (len(groups) - 1) // (MAX_RECORDS - 1)] for i in range(MAX_RECORDS)]
    # The first record of every update, then the second ...: a cut takes as much from each.
    turns = max((len(group) for group in groups), default=0)
    queue = [group[turn] for turn in range(turns) for group in groups if turn < len(group)]
    chosen, tokens = [], 0
    for record in queue[:MAX_RECORDS]:
        if tokens >= MAX_TOKENS:
            break
        chosen.append(record)
        tokens += sum(
            len(side["tokens"]) for side in (record["failed"], record["repaired"]) if side
        )
    return sorted(chosen, key=lambda record: record["update"])


def _record(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The known fields of one record, numbers rounded."""
    record = {name: str(raw[name]) for name in ("kind", "problem", "gold", "separator")}
    record |= {"update": int(raw["update"]), "failed": _side(raw["failed"])}
    record["repaired"] = _side(raw["repaired"]) if raw.get("repaired") else None
    for name in ("anchor", "status", "reason"):
        record[name] = None if raw.get(name) is None else str(raw[name])
    record["audit"] = None
    if audit := raw.get("audit"):
        accepted = audit["accepted"]  # None: the auditor failed
        record["audit"] = {"accepted": accepted if accepted is None else bool(accepted)}
        record["audit"]["reason"] = str(audit["reason"])
    if record["status"] is None and audit:  # files of earlier versions hold accepted pairs alone
        record["status"] = "accepted" if audit["accepted"] else "rejected"
    for name in (
        "reward_failed",
        "reward_repaired",
        "oracle_first_error",
        "repaired_first_error",
        "gate_first_step",
    ):
        record[name] = None if raw.get(name) is None else round(raw[name], 4)
    return record


def _side(raw: Mapping[str, Any]) -> dict[str, list]:
    side: dict[str, list] = {"tokens": [str(token) for token in raw["tokens"]]}
    for name in ("gate", "edit", "step", "advantage", "logprob", "ratio"):
        if raw.get(name) is not None:
            side[name] = [None if value is None else round(value, 4) for value in raw[name]]
            if len(side[name]) != len(side["tokens"]):
                raise ValueError(f"{len(side['tokens'])} tokens, {len(side[name])} of {name}")
    return side
