"""Writers: what is written reads back exactly, survives a kill; only the first process writes."""

import io
import json
import math
import re
import struct

import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

from jaxrl_reason import metrics


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plain_console(num_updates, clock):
    out = io.StringIO()
    console = rich.console.Console(file=out, force_terminal=False, width=40)
    return metrics.ConsoleWriter(num_updates, console=console, clock=clock), out


def lines_of(out):
    """What a console wrote whose clock stood still, so that no time is left."""
    return [line.removesuffix("  ETA 0s") for line in out.getvalue().splitlines()]


# --- JSON lines


def test_floats_read_back_bit_by_bit(tmp_path):
    rng = np.random.default_rng(0)
    doubles = [float(x) for x in rng.standard_normal(50) * 10.0 ** rng.integers(-30, 30, 50)]
    singles = [np.float32(x) for x in rng.standard_normal(50)]
    writer = metrics.JsonlWriter(tmp_path / "metrics.jsonl")
    for update, (double, single) in enumerate(zip(doubles, singles, strict=True)):
        writer.write(update, {"double": double, "single": single, "device": jnp.float32(single)})
    writer.close()
    rows = metrics.read_metrics(tmp_path / "metrics.jsonl")
    assert [row["update"] for row in rows] == list(range(50))
    for row, double, single in zip(rows, doubles, singles, strict=True):
        assert struct.pack("<d", row["double"]) == struct.pack("<d", double)
        assert np.float32(row["single"]).tobytes() == single.tobytes()
        assert np.float32(row["device"]).tobytes() == single.tobytes()


def test_json_is_strict_and_keeps_integers(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = metrics.JsonlWriter(path)
    big = 2**60 + 1  # not a float64: token counters must stay integers
    values = {
        "a": math.nan,
        "b": -math.inf,
        "c": jnp.float32(jnp.nan),
        "n": np.int64(big),
        "d": jnp.int32(7),
        "e": True,
    }
    writer.write(3, values)

    def refuse(constant):
        raise AssertionError(constant)

    row = json.loads(
        path.read_text(), parse_constant=refuse
    )  # read before close: every line is flushed
    assert row == {"update": 3, "a": None, "b": None, "c": None, "n": big, "d": 7, "e": 1}
    writer.close()


def test_a_killed_process_loses_only_its_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"update": 1, "x": 0.5}\n{"update": 2, "x": 0.25}\n{"update": 3, "x": 0.1\xc3'
    )
    assert [row["update"] for row in metrics.read_metrics(path)] == [1, 2]
    writer = metrics.JsonlWriter(path)
    writer.write(3, {"x": 0.125})
    writer.close()
    assert (
        path.read_bytes()
        == b'{"update": 1, "x": 0.5}\n{"update": 2, "x": 0.25}\n{"update": 3, "x": 0.125}\n'
    )


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"update": 1, "x": 0.5}')
    writer = metrics.JsonlWriter(path)
    writer.write(2, {"x": 1})
    writer.close()
    assert path.read_bytes() == b'{"update": 1, "x": 0.5}\n{"update": 2, "x": 1}\n'


def test_truncate_after_drops_later_updates_and_keeps_bytes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = b'{"update":0,"x":1e0}\n{"update": 1, "x": 0.30000000000000004}\n{"update": 2, "x": 1}\n'
    path.write_bytes(kept + b'{"update": 3, "x": 1}\n{"update": 4, "x"')
    writer = metrics.JsonlWriter(path)
    writer.truncate_after(2)
    assert path.read_bytes() == kept
    writer.write(3, {"x": 9})
    writer.close()
    assert path.read_bytes() == kept + b'{"update": 3, "x": 9}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    "bad", ['{"update": 2', "[1]", '{"x": 1}', '{"update": 1.5}', '{"update": true}']
)
def test_a_broken_line_in_the_middle_is_named(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"update": 1}\n' + bad + '\n{"update": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: .*remove that line"):
        metrics.read_metrics(path)


def test_lines_of_one_update_are_merged(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"update": 2, "a": 1, "b": 1}\n{"update": 1, "a": NaN}\n{"update": 2, "b": 5, "c": 6}\n'
    )
    rows = metrics.read_metrics(path)
    assert rows == [{"update": 1, "a": None}, {"update": 2, "a": 1, "b": 5, "c": 6}]


# --- TensorBoard


def event_scalars(folder):
    """{tag: [(step, value)]} as TensorBoard itself reads a folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={accumulator.SCALARS: 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def test_tensorboard_reads_names_steps_and_values(tmp_path):
    writer = metrics.TensorBoardWriter(tmp_path)
    writer.phase("updating")
    assert not list(tmp_path.iterdir())  # no empty event file before the first metrics
    writer.write(0, {"eval/arithmetic/avg@1": 0.25})
    writer.write(1, {"reward/mean": np.float32(0.1), "eval/arithmetic/avg@1": jnp.float32(0.5)})
    scalars = event_scalars(tmp_path)  # before close: every update is flushed
    writer.close()
    writer.close()
    assert scalars["eval/arithmetic/avg@1"] == [(0, 0.25), (1, 0.5)]
    assert scalars["reward/mean"] == [(1, float(np.float32(0.1)))]


def test_tensorboard_framing_has_no_torn_record(tmp_path):
    # Record: uint64 length, uint32 checksum, payload, uint32 checksum; the first holds the version,
    # then one per update.
    writer = metrics.TensorBoardWriter(tmp_path)
    for update in range(3):
        writer.write(update, {"a": 1.0, "b": math.nan})
    data, sizes = next(tmp_path.iterdir()).read_bytes(), []
    writer.close()
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        sizes.append(size)
        data = data[8 + 4 + size + 4 :]
    assert len(sizes) == 4


def test_tensorboard_forgets_updates_after_the_checkpoint(tmp_path):
    first = metrics.TensorBoardWriter(tmp_path)
    for update in range(5):
        first.write(update, {"x": update})
    first.close()
    resumed = metrics.TensorBoardWriter(tmp_path)
    resumed.truncate_after(2)
    resumed.write(3, {"x": 30})
    resumed.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert event_scalars(tmp_path)["x"] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)]


# --- console


def test_plain_lines_show_slow_phases_and_every_update():
    clock = Clock()
    writer, out = plain_console(100, clock)
    writer.phase("sampling")
    assert out.getvalue() == "update 0/100  sampling ...\n"
    writer.phase("repairing")  # how long an update takes is not known yet
    writer.phase("sampling")
    writer.phase("repairing")
    clock.now += 30.0
    writer.write(0, {"eval/arithmetic/avg@1": 0.31})
    clock.now += 2.0
    line = {"time/total": 1.75, "perf/generated_tokens": 4_400.0, "reward/mean": 0.5}
    writer.write(10, line | {"response_length/mean": 21.33})
    writer.phase("updating")  # updates are fast: their phases are not shown
    clock.now += 90.0
    writer.phase("sampling")  # until one is late
    clock.now += 1.0
    writer.write(11, {"perf/tokens_per_s": jnp.float32(12345.0), "reward/mean": 1})
    writer.phase("saving")
    writer.close()
    writer.close()
    # At update 10: 10 updates in 2 s, 90 are left. At 11: 11 in 93 s, 89 are left. Width 40 must not wrap the line.
    assert out.getvalue().splitlines()[1:] == [
        "update 0/100  repairing ...",
        "update 0/100  accuracy 0.310",
        "update 10/100  reward 0.500  length 21.33  1.8s  4.4k tokens  ETA 18s",
        "update 10/100  sampling ...",
        "update 11/100  reward 1.000  12.3k tok/s  ETA 12m 32s",
        "update 11/100  saving ...",
    ]
    writer.phase("late")
    assert "late" not in out.getvalue()


def test_many_fast_updates_are_a_line_for_each_percent():
    clock = Clock()
    writer, out = plain_console(10_000, clock)
    for update in range(10_001):
        clock.now += 0.01
        writer.phase("sampling")
        writer.write(update, {"reward/mean": 0.5})
    writer.close()
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines[:4]] == [
        "0/10000",
        "0/10000",
        "0/10000",
        "100/10000",
    ]
    assert len(lines) == 103 and lines[-1].startswith("update 10000/10000  reward 0.500")


@pytest.mark.parametrize("updates", [7, 100])
def test_no_update_of_a_short_run_is_left_out(updates):
    writer, out = plain_console(updates, Clock())
    for update in range(1, updates + 1):
        writer.write(update, {"reward/mean": 0.5})
    assert [line.split()[1] for line in out.getvalue().splitlines()] == [
        f"{u}/{updates}" for u in range(1, updates + 1)
    ]


@pytest.mark.parametrize(
    ("failures", "pairs", "alone", "words"),
    [
        (13, 1, 12, "repaired 1 of 13 (12 without an anchor)"),
        (8, 3, 0, "repaired 3 of 8"),
        (5, 0, 5, "repaired 0 of 5 (5 without an anchor)"),
    ],
)
def test_repairs_are_shown_as_a_share_of_all_failures(failures, pairs, alone, words):
    writer, out = plain_console(9, Clock())
    line = {"process/failures": float(failures), "process/pairs": float(pairs)}
    writer.write(1, line | {"process/no_anchor_frac": alone / failures})
    writer.write(2, {"reward/mean": 1.0, "process/failures": 0.0, "process/pairs": 0.0})
    assert lines_of(out) == [f"update 1/9  {words}", "update 2/9  reward 1.000"]


def test_an_evaluation_waits_for_the_next_line():
    writer, out = plain_console(1000, Clock())
    writer.write(0, {})
    writer.write(1, {"eval/arithmetic/avg@1": 0.25, "reward/mean": 0.125})
    writer.write(10, {"reward/mean": 0.5})
    writer.write(20, {"reward/mean": 0.75})
    assert lines_of(out)[1:] == [
        "update 10/1000  reward 0.500  accuracy 0.250",
        "update 20/1000  reward 0.750",
    ]


def test_a_resumed_run_counts_from_where_it_was(tmp_path, capsys):
    writers = metrics.open_writers(tmp_path, num_updates=20, tensorboard=False, resumed_from=8)
    for writer in writers:
        writer.phase("sampling")
        writer.close()
    assert capsys.readouterr().out == "update 8/20  sampling ...\n"


def test_nothing_is_repeated_at_close():
    writer, out = plain_console(5, Clock())
    writer.phase("sampling")
    writer.write(1, {})
    writer.close()
    assert out.getvalue().count("\n") == 2


def test_time_left_counts_only_updates_of_this_process():
    clock = Clock()
    writer, out = plain_console(100, clock)
    writer.write(80, {})  # resumed from update 79
    clock.now += 20.0
    writer.write(90, {})  # 10 updates in 20 s, 10 are left: 20 s
    assert out.getvalue().splitlines()[-1].endswith("ETA 20s")


def test_a_token_budget_ends_the_bar_before_the_updates_do():
    out, clock = io.StringIO(), Clock()
    console = rich.console.Console(file=out, force_terminal=False, width=200)
    writer = metrics.ConsoleWriter(1000, max_generated_tokens=400_000, console=console, clock=clock)
    writer.write(0, {})
    clock.now += 30.0
    writer.write(14, {"perf/generated_tokens": 100_000.0})  # a quarter in 30 s: 90 s are left
    line = out.getvalue().splitlines()[-1]
    assert line.startswith("update 14, 100k/400k tokens") and line.endswith("ETA 1m 30s")


def test_two_tasks_are_told_apart():
    writer, out = plain_console(5, Clock())
    writer.write(
        1, {"eval/gsm8k/avg@4": 0.25, "eval/arithmetic/avg@4": 0.5, "eval/gsm8k/greedy": 1.0}
    )
    assert "accuracy arithmetic 0.500  accuracy gsm8k 0.250" in out.getvalue()


def test_hostile_markup_is_printed_as_it_is():
    writer, out = plain_console(5, Clock())
    writer.phase("[red]x[/red]")
    assert "[red]x[/red]" in out.getvalue()


def test_live_display_on_a_terminal():
    out, clock = io.StringIO(), Clock()
    console = rich.console.Console(
        file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"}
    )
    writer = metrics.ConsoleWriter(10, console=console, clock=clock)
    writer.phase("sampling")
    writer.write(0, {})
    clock.now += 5
    writer.write(5, {"reward/mean": 0.75})
    writer.phase("verifying")
    writer.write(10, {"reward/mean": 0.875})
    writer.close()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    last = text.splitlines()[-2:]
    assert "✓ verifying" in last[0] and "10/10" in last[0] and "━" * 30 in last[0]
    assert last[1].strip() == "reward 0.875"


# --- composition


def test_open_writers_writes_everything_on_the_first_process(tmp_path, capsys):
    writers = metrics.open_writers(tmp_path / "run", num_updates=2)
    assert all(isinstance(writer, metrics.MetricWriter) for writer in writers)
    for update in (1, 2):
        for writer in writers:
            writer.write(update, {"reward/mean": update / 2})
    for writer in writers:
        writer.close()
    writers = metrics.open_writers(tmp_path / "run", num_updates=2, resumed_from=1)
    for writer in writers:
        writer.write(2, {"reward/mean": 0.75})
        writer.close()
    rows = metrics.read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows == [{"update": 1, "reward/mean": 0.5}, {"update": 2, "reward/mean": 0.75}]
    assert event_scalars(tmp_path / "run" / "tensorboard")["reward/mean"] == [(1, 0.5), (2, 0.75)]
    assert "update 2/2" in capsys.readouterr().out


def test_other_processes_write_nothing(tmp_path):
    assert metrics.open_writers(tmp_path / "run", num_updates=2, process_index=1) == []
    assert not (tmp_path / "run").exists()


def test_event_files_need_a_wish(tmp_path):
    for writer in metrics.open_writers(tmp_path, num_updates=1, tensorboard=False):
        writer.close()
    assert not (tmp_path / "tensorboard").exists()
