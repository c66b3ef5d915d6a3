"""Where the time of a run goes: seconds by stage, programs compiled.

Host side. Reads: the clock, compilation events of jax. Writes: nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax


class Clock:
    """Seconds by stage; `total` is wall time since the clock was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[stage] = self._spent.get(stage, 0.0) + time.perf_counter() - start

    def total(self) -> float:
        return time.perf_counter() - self._start

    def metrics(self) -> dict[str, float]:
        return {f"time/{stage}": seconds for stage, seconds in self._spent.items()}


class CompileCounter:
    """Programs built since it was made, compiled or read from the disk; after the first updates this must stand still.

    What a cache on the disk saves is the time of the compiler. A shape that changes from update to update is still
    seen here, also by the second process that meets it.
    """

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, seconds: float, **details: Any) -> None:
        self.count += event == "/jax/core/compile/backend_compile_duration"

    def close(self) -> None:
        """Stop counting."""
        jax.monitoring.unregister_event_duration_listener(self._listen)
