"""Updates on given rows: each one written down; saved, resumed, and ended by a signal, like those of `train`.

Host side; drives the device. Reads: JSON lines of a run folder. Writes: metrics.jsonl, checkpoints/N/ and JSON lines of
it.

A batch is a function of the number of its update and of the state, so that a run which was cut off goes on bitwise.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import optax

from jaxrl_reason import checkpoint, files, parts, signals, timing
from jaxrl_reason.types import TrainState


class Batch(NamedTuple):
    """What one update learns from."""

    arrays: Any  # on the devices
    loss: str  # metric's name
    tokens: int  # read
    trained: int  # with loss


@dataclasses.dataclass
class Session:
    """A run between two updates."""

    config: ml_collections.ConfigDict
    store: checkpoint.Checkpoints
    writers: parts.Writers
    stop: signals.Stop
    state: TrainState
    progress: parts.Progress

    def keep(self) -> int:
        """The state after the last whole update, on the disk; the number of that update."""
        self.store.save(self.progress.update, self.state, self.progress.to_dict())
        self.store.wait()
        return self.progress.update


# (session) -> (arrays of the update that comes next)
BatchFn = Callable[[Session], Batch]
# (state, arrays) -> (state, loss)
UpdateFn = Callable[[TrainState, Any], tuple[TrainState, Any]]


def run(
    session: Session,
    until: int,
    batch_fn: BatchFn,
    update_fn: UpdateFn,
    *,
    evaluate_fn: Callable[[Session], dict[str, float]] = lambda _: {},
    evaluates: Callable[[int], bool] = lambda _: False,
) -> None:
    """Take updates until there are `until` of them, or a signal ends the run; `session` moves with them.

    Args:
      session: state and progress before the first of them.
      until: updates since the beginning of the run.
      batch_fn: batch of update number `session.progress.update`, counted from 0.
      update_fn: uses its first argument up.
      evaluate_fn: metrics of the state.
      evaluates: whether it is asked after so many updates.
    Raises:
      FloatingPointError: a loss is not finite.
    """
    stop, store, progress = session.stop, session.store, session.progress
    if progress.unevaluated:
        session.writers.write(progress.update, _evaluated(session, evaluate_fn))
    while progress.update < until and not stop.is_set():
        clock = timing.Clock()
        with stop.droppable(session.keep):
            batch = batch_fn(session)
            if stop.is_set():
                session.keep()  # the update may outlast the grace, and uses the state up
            stop.commit(store.latest_update)
            session.state, loss = update_fn(session.state, batch.arrays)
            loss = float(loss)
        if stop.dropped:
            return
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"update {progress.update + 1}: {batch.loss} = {loss}; lower the learning rate. Last"
                f" good checkpoint: {store.folder}/{store.latest_update()}"
            )
        progress.advance(generated=0, trained=batch.trained, seconds=clock.total())
        progress.unevaluated = evaluates(progress.update)
        line = {batch.loss: loss} | _speed(progress, batch.tokens, clock.total())
        session.writers.write(progress.update, line | _evaluated(session, evaluate_fn))
        if progress.update % session.config.train.checkpoint_every == 0 or (
            progress.update == until or stop.is_set()
        ):
            store.save(progress.update, session.state, progress.to_dict())


def _speed(progress: parts.Progress, tokens: int, seconds: float) -> dict[str, float]:
    return {
        "perf/trained_tokens": float(progress.trained_tokens),
        "perf/seconds": progress.seconds,
        "perf/tokens_per_s": tokens / max(seconds, 1e-9),
        "time/total": seconds,
    }


def _evaluated(session: Session, evaluate_fn: Callable[[Session], dict[str, float]]) -> dict:
    """Metrics of an evaluation that is due; nothing where none is, or a signal came before its end."""
    found: dict[str, float] = {}
    if session.progress.unevaluated and not session.stop.is_set():
        session.writers.phase("evaluating")
        with session.stop.droppable(session.keep):
            found = evaluate_fn(session)
            session.progress.unevaluated = False
    return found


def warm_cosine(peak: float, num_updates: int) -> optax.Schedule:
    """Learning rate: up to `peak` over a tenth of the updates, 50 at most; then a cosine to a tenth of it."""
    return optax.warmup_cosine_decay_schedule(
        0.0, peak, min(50, max(num_updates // 10, 1)), max(num_updates, 2), 0.1 * peak
    )


def write_lines(path: pathlib.Path, records: Iterable[dict[str, Any]]) -> None:
    """JSON lines, by the first process; the file is there whole or not at all."""
    if jax.process_index():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace_text(path, "".join(json.dumps(r) + "\n" for r in records))


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """What `write_lines` wrote.

    Raises:
      FileNotFoundError: no such file; says what that means for a run that is resumed.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: missing, and the run cannot go on without it; start a new run_dir"
        )
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rng_of(config: ml_collections.ConfigDict, *place: int) -> np.random.Generator:
    """Generator of one place of a run, such as the number of an update."""
    return np.random.default_rng([config.seed, *place])
