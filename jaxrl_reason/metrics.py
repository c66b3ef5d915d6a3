"""Writers of training metrics: JSON lines, TensorBoard event files, live console progress.

Host side. Reads: metrics.jsonl on resume. Writes: metrics.jsonl, TensorBoard event files, the
terminal.

A writer takes the metrics of one update as {name: number}. Counters (`perf/generated_tokens`,
`perf/trained_tokens`, `perf/seconds`) are totals since the start of the run, so that a reader needs
no sums and a resumed run no memory; every other metric speaks about its own update. Update 0 is the
state before training.
"""

from __future__ import annotations

import json
import math
import numbers
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import rich.console
import rich.live
import rich.progress_bar
import rich.spinner
import rich.table
import rich.text
from tensorboardX import event_file_writer
from tensorboardX.proto import event_pb2, summary_pb2

from jaxrl_reason import files


def _compact(number: float | int) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"


def _seconds(number: float | int) -> str:
    return f"{number:.1f}s" if number < 60 else _duration(number)


def _repaired(failures: float, metrics: Mapping[str, Any]) -> str:
    """Of all failures, those without an anchor too, which nobody tried to repair; empty where nothing failed.

    Example:
      >>> _repaired(13.0, {"process/pairs": 1.0, "process/no_anchor_frac": 12 / 13})
      '1 of 13 (12 without an anchor)'
    """
    if not failures or "process/pairs" not in metrics:
        return ""
    text = f"{metrics['process/pairs']:.0f} of {failures:.0f}"
    alone = round(metrics.get("process/no_anchor_frac", 0.0) * failures)
    return f"{text} ({alone} without an anchor)" if alone else text


# Console columns: (pattern of metric names, label, (number, all metrics) -> text). The first group of a
# pattern, where there is one, names the task and is shown as soon as two tasks are evaluated.
COLUMNS: tuple[tuple[str, str, Callable[..., str]], ...] = (
    (r"reward/mean", "reward", "{:.3f}".format),
    (r"(?:sft/[a-z]+_|prm/)loss", "loss", "{:.4f}".format),
    (r"response_length/mean", "length", "{:.4g}".format),
    (r"process/failures", "repaired", _repaired),
    (r"eval/(.+)/avg@\d+", "accuracy", "{:.3f}".format),
    (r"time/total", "", lambda number, _: _seconds(number)),
    (r"perf/generated_tokens", "", lambda number, _: f"{_compact(number)} tokens"),
    (r"perf/tokens_per_s", "", lambda number, _: f"{_compact(number)} tok/s"),
)


@runtime_checkable
class MetricWriter(Protocol):
    """What the training loop calls; a run has a plain list of them."""

    def phase(self, name: str) -> None:
        """Say what the run does now: sampling, repairing, verifying, updating, evaluating."""
        ...

    def write(self, update: int, metrics: Mapping[str, Any]) -> None:
        """Record the metrics of one update; numbers may be Python, numpy or jax scalars."""
        ...

    def close(self) -> None:
        """Finish; further calls to `close` do nothing."""
        ...


def open_writers(
    folder: str | os.PathLike,
    *,
    num_updates: int,
    max_generated_tokens: int = 0,
    tensorboard: bool = True,
    resumed_from: int | None = None,
    process_index: int | None = None,
) -> list[MetricWriter]:
    """Writers of a run: console, `metrics.jsonl`, event files; none but on the first process.

    Args:
      folder: run folder.
      num_updates: updates of the whole run, for the progress bar.
      max_generated_tokens: budget that ends the run earlier, for the progress bar; 0: none.
      tensorboard: also write event files, to `folder/tensorboard`.
      resumed_from: update of the checkpoint that a resumed run starts from: later metrics are
        dropped.
      process_index: of this process; default: `jax.process_index()`.
    Returns:
      A list of writers, empty where process_index is not 0.
    """
    if (jax.process_index() if process_index is None else process_index) != 0:
        return []
    stored = [JsonlWriter(Path(folder) / "metrics.jsonl")]
    if tensorboard:
        stored.append(TensorBoardWriter(Path(folder) / "tensorboard"))
    if resumed_from is not None:
        for writer in stored:
            writer.truncate_after(resumed_from)
    console = ConsoleWriter(
        num_updates, max_generated_tokens=max_generated_tokens, done=max(resumed_from or 0, 0)
    )
    return [*stored, console]


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Metrics as they were written: one dict per update, in order, `None` for NaN and infinities.

    Lines of one update are merged, later values last; a half-written last line (the process was
    killed) is left out.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line in the middle is not a JSON object with an integer "update".
    """
    by_update: dict[int, dict[str, Any]] = {}
    for _, row in _parsed_lines(Path(path)):
        by_update.setdefault(row["update"], {}).update(row)
    return [by_update[update] for update in sorted(by_update)]


class JsonlWriter:
    """Appends one JSON object per update: {"update": int, name: number or null, ...}.

    Strict JSON, so NaN and infinities become null. Floats read back bit by bit: float32 values are
    written with the digits of the float64 that equals them. Each line is flushed, so a killed
    process loses at most the line it was writing, and that torn line is removed when the file is
    opened again.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
      >>> writer = JsonlWriter(path)
      >>> writer.write(1, {"reward/mean": 0.25, "policy/kl": float("nan")})
      >>> writer.close()
      >>> print(path.read_text().strip())
      {"update": 1, "reward/mean": 0.25, "policy/kl": null}
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._keep(lambda update: True)
        self._file = self.path.open("a", encoding="utf-8")

    def truncate_after(self, update: int) -> None:
        """Drop the lines of updates later than `update`: a resumed run writes each update once."""
        self._file.close()
        self._keep(lambda written: written <= update)
        self._file = self.path.open("a", encoding="utf-8")

    def phase(self, name: str) -> None:
        """Nothing: phases are not stored."""

    def write(self, update: int, metrics: Mapping[str, Any]) -> None:
        row = {"update": int(update)} | {
            name: _json_number(value) for name, value in metrics.items()
        }
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _keep(self, wanted: Callable[[int], bool]) -> None:
        # A new file takes the old one's place in one step: a kill in between leaves one of the two,
        # whole.
        kept = [line for line, row in _parsed_lines(self.path) if wanted(row["update"])]
        text = "".join(line + "\n" for line in kept)
        if text != self.path.read_text(encoding="utf-8", errors="replace"):
            files.replace_text(self.path, text)


class TensorBoardWriter:
    """Appends scalars to TensorBoard event files, synchronously and without TensorFlow or PyTorch.

    One event per update, flushed. Names are kept as they are; numbers are stored as float32, NaN
    included. A new file is opened by the first `write`, also after a resume, since TensorBoard
    reads all files of a folder in order.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder = Path(folder)
        self._events: event_file_writer.EventsWriter | None = None
        self._first_update: int | None = None

    def truncate_after(self, update: int) -> None:
        """Make TensorBoard forget what earlier files say about updates later than `update`."""
        self.close()
        self._first_update = update + 1

    def phase(self, name: str) -> None:
        """Nothing: phases are not stored."""

    def write(self, update: int, metrics: Mapping[str, Any]) -> None:
        if self._events is None:
            self._open()
        values = [
            summary_pb2.Summary.Value(tag=name, simple_value=float(value))
            for name, value in metrics.items()
        ]
        summary = summary_pb2.Summary(value=values)
        self._events.write_event(
            event_pb2.Event(wall_time=time.time(), step=int(update), summary=summary)
        )
        self._events.flush()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Nanoseconds: two files of the same second would otherwise have one name, and the later
        # would win.
        self._events = event_file_writer.EventsWriter(
            str(self._folder / "events"), f".{time.time_ns()}"
        )
        if self._first_update is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            event = event_pb2.Event(
                wall_time=time.time(), step=self._first_update, session_log=start
            )
            self._events.write_event(event)
            self._first_update = None


class ConsoleWriter:
    """Progress on the terminal: phase, bar, update i of n, time left, the metrics to glance at.

    On a terminal the display is live. Elsewhere (a pipe, CI, a notebook) it is plain lines: one for each update, where
    updates are many for each percent of the run or every `interval_s` seconds; and one for each phase, as long as
    updates take longer than that.

    Args:
      num_updates: updates of the whole run, >= 0.
      max_generated_tokens: budget that may end the run earlier; 0: none.
      done: updates before this process.
      unit: what is counted.
      columns: what is shown, see COLUMNS; an evaluation is shown until the next one (in plain lines: once), every
        other metric only with its own update.
      interval_s: seconds without a plain line after which the next call writes one.
      console: where to write; default: standard output.
      clock: seconds, monotonic; for tests.
    """

    def __init__(
        self,
        num_updates: int,
        *,
        max_generated_tokens: int = 0,
        done: int = 0,
        unit: str = "update",
        columns: tuple[tuple[str, str, Callable[..., str]], ...] = COLUMNS,
        interval_s: float | int = 10,
        console: rich.console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._num_updates = num_updates
        self._budget = max_generated_tokens
        self._tokens = 0.0
        self._unit = unit
        self._columns = columns
        self._interval_s = interval_s
        self._console = console or rich.console.Console(highlight=False)
        self._clock = clock
        self._phase = "starting"
        self._update = done
        self._shown: dict[tuple[str, str], str] = {}  # (pattern, task) -> formatted value
        self._started: tuple[float, float] | None = None  # time and share done at the first write
        self._written_at = -math.inf
        self._printed_at = -math.inf  # the last plain line
        self._printed_share = -math.inf  # done at the last plain line of an update
        self._pending = False  # an update was written since the last plain line
        self._live: rich.live.Live | None = None
        self._closed = False
        self._spinner = rich.spinner.Spinner("dots")
        self._said: set[str] = set()  # phases that were printed since
        self._slow = True  # until updates were seen that are not

    def phase(self, name: str) -> None:
        self._phase = name
        if self._closed or self._refresh_live():
            return
        late = self._clock() - self._printed_at >= self._interval_s
        if late or (self._slow and name not in self._said):
            self._said.add(name)
            self._print_line(self._phase + " ...")

    def write(self, update: int, metrics: Mapping[str, Any]) -> None:
        now, self._update = self._clock(), int(update)
        self._tokens = metrics.get("perf/generated_tokens", self._tokens)
        if self._started is None:
            self._started = (now, self._share())
        self._slow = now - self._written_at >= self._interval_s
        self._written_at = now
        self._said.clear()
        self._shown = {key: text for key, text in self._shown.items() if key[0].startswith("eval/")}
        for pattern, _, text in self._columns:
            for name, value in metrics.items():
                if value is not None and (match := re.fullmatch(pattern, name)):
                    task = match.group(1) if match.re.groups else ""
                    self._shown[(pattern, task)] = text(float(value), metrics)
        if self._closed or self._refresh_live():
            return
        self._pending = True
        due = min(self._printed_share + 0.01 - 1e-9, 1.0)
        if now - self._printed_at >= self._interval_s or self._share() >= due:
            self._print_update()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._live is not None:
            self._live.update(self, refresh=True)
            self._live.stop()
        elif self._pending:
            self._print_update()

    def __rich__(self) -> rich.table.Table:
        """Two rows: progress, metrics."""
        top = rich.table.Table.grid(padding=(0, 1))
        bar = rich.progress_bar.ProgressBar(total=1.0, completed=self._share(), width=32)
        lead = rich.text.Text("✓", style="green") if self._closed else self._spinner
        counts = rich.text.Text(self._counts(), style="bold")
        top.add_row(
            lead,
            rich.text.Text(self._phase.ljust(10)),
            bar,
            counts,
            rich.text.Text(self._eta(), style="dim"),
        )
        page = rich.table.Table.grid()
        page.add_row(top)
        page.add_row(rich.text.Text("  " + "   ".join(self._cells()), style="cyan"))
        return page

    def _refresh_live(self) -> bool:
        """True on a terminal, whose display draws itself."""
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            return False
        if self._live is None:
            self._live = rich.live.Live(self, console=self._console, refresh_per_second=8)
            self._live.start()
        return True

    def _print_update(self) -> None:
        self._print_line(*self._cells(), self._eta())
        self._pending, self._shown, self._printed_share = False, {}, self._share()

    def _print_line(self, *cells: str) -> None:
        line = [f"{self._unit} {self._counts()}", *cells]
        self._console.print("  ".join(cell for cell in line if cell), markup=False, soft_wrap=True)
        self._printed_at = self._clock()

    def _cells(self) -> list[str]:
        # In the order of the columns, not of arrival: numbers then stay in their place.
        cells = []
        for pattern, label, _ in self._columns:
            if self._budget and pattern == "perf/generated_tokens":
                continue  # stands beside its budget already
            tasks = sorted(task for shown, task in self._shown if shown == pattern)
            for task in tasks:
                text = self._shown[(pattern, task)]
                words = [label, task if len(tasks) > 1 else "", text] if text else []
                cells.append(" ".join(word for word in words if word))
        return [cell for cell in cells if cell]

    def _share(self) -> float:
        """Of the run that is done: of its updates or of its tokens, whichever ends it first."""
        updates = self._update / max(self._num_updates, 1)
        return min(max(updates, self._tokens / self._budget if self._budget else 0.0), 1.0)

    def _counts(self) -> str:
        if not self._budget:
            return f"{self._update}/{self._num_updates}"
        return f"{self._update}, {_compact(self._tokens)}/{_compact(self._budget)} tokens"

    def _eta(self) -> str:
        share = self._share()
        if self._started is None or share <= self._started[1] or share >= 1:
            return ""
        # Only what this process did counts: updates before a resume took no time here.
        seconds, first = self._started
        return "ETA " + _duration((self._clock() - seconds) / (share - first) * (1 - share))


def _parsed_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(line, its object) of a metrics file, without a torn last line."""
    lines = path.read_bytes().split(b"\n")
    parsed = []
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            # Python's own parser takes NaN; a file of another writer may have it.
            row = json.loads(raw, parse_constant=lambda _: None)
            if type(row["update"]) is not int:
                raise TypeError("update")
        except (ValueError, TypeError, KeyError):
            if number == len(lines):
                break
            raise ValueError(
                f'{path}, line {number}: not a JSON object with an integer "update"; remove that'
                " line or restore the file"
            ) from None
        parsed.append((raw.decode("utf-8"), row))
    return parsed


def _json_number(value: Any) -> float | int | None:
    value = value.item() if hasattr(value, "item") else value  # numpy and jax scalars
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {seconds:02d}s" if minutes else f"{seconds}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"
