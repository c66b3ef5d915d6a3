"""How far an evaluation is: a bar on a terminal, plain lines elsewhere.

Host side. Reads: nothing. Writes: the console.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import rich.console

from jaxrl_reason import estimates, metrics


class Progress:
    """Progress of one task on a console, in completions; without one, nothing.

    Args:
      console: where to write.
      label: name of the task.
      samples: completions of each problem, the greedy one not counted.
      problems: of the task.
      done: of them, before this process.
    """

    def __init__(
        self,
        console: rich.console.Console | None,
        label: str,
        samples: int,
        problems: int,
        done: int,
    ):
        self.label, self.samples = label, samples
        self.done, self.figures = done * (samples + 1), {}
        self.writer = None
        if console is None or jax.process_index():
            return
        self.writer = metrics.ConsoleWriter(
            problems * (samples + 1), done=self.done, unit="completion", console=console
        )

    def phase(self, name: str) -> None:
        if self.writer:
            self.writer.phase(f"{self.label}, {name}")

    def block(self, records: Sequence[Mapping[str, Any]], tokens_per_s: float) -> None:
        """After a block: figures of all records so far."""
        right = [reward >= estimates.THRESHOLD for r in records for reward in r["rewards"]]
        name = f"eval/{self.label}/avg@{self.samples}"
        self.figures = {name: float(np.mean(right)), "perf/tokens_per_s": tokens_per_s}
        if self.writer:
            self.writer.write(self.done, self.figures)

    def close(self) -> None:
        if self.writer:
            self.writer.close()

    def rows(self, rows: int) -> None:
        """More completions are there."""
        self.done += rows
        if self.writer:
            self.writer.write(self.done, self.figures)
