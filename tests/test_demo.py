"""The demo's table: what it says of runs, finished or not."""

from __future__ import annotations

import io
import json

import rich.console

from jaxrl_reason import demo


def write_run(folder, evaluated):
    """A run of four updates with accuracies {update: value}."""
    folder.mkdir()
    lines = []
    for update in range(5):
        line = {"update": update, "perf/generated_tokens": 100 * update, "perf/seconds": update}
        if update in evaluated:
            value = evaluated[update]
            line |= {"eval/arithmetic/avg@1": value, "eval/arithmetic/greedy": value}
        lines.append(json.dumps(line) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def test_table_does_not_show_the_start_as_the_end(tmp_path):
    runs = {
        "whole": write_run(tmp_path / "whole", {0: 0.25, 4: 0.75}),
        "cut": write_run(tmp_path / "cut", {0: 0.25}),
    }
    out = io.StringIO()
    rich.console.Console(file=out, width=120).print(demo.table(runs))
    rows = {line.split()[1]: line for line in out.getvalue().splitlines() if "0.250" in line}
    assert "0.250 (0.250)" in rows["whole"] and "0.750 (0.750)" in rows["whole"]
    assert rows["cut"].count("0.250 (0.250)") == 1 and "not evaluated" in rows["cut"]
    assert all(" 4 " in row and " 400 " in row for row in rows.values())
