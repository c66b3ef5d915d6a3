"""Rewards of the steps of many solutions: rows of a process reward model in few fixed shapes.

Host side; drives the device. Reads: a folder of a process reward model. Writes: nothing.
"""

from __future__ import annotations

import json
import pathlib
import time
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxrl_reason import sharding
from jaxrl_reason.models import prm as prms
from jaxrl_reason.rollout import batching
from jaxrl_reason.types import StepRewards


class StepScorer:
    """Questions and steps to rewards; counts what it cost since it was made.

    Rows are sorted by length and cut into chunks of two sizes; each chunk takes the narrowest of three widths that
    holds it, so that at most six programs are compiled.
    """

    def __init__(self, prm: prms.Prm, *, max_tokens: int, chunk_rows: int, mesh: jax.sharding.Mesh):
        self.prm, self.max_tokens, self.chunk_rows = prm, max_tokens, chunk_rows
        self.tokens_read = 0  # without padding
        self.seconds = 0.0
        self._rows, self._multiple = sharding.batch_sharding(mesh), sharding.row_shards(mesh)

    def __call__(self, questions: Sequence[str], steps: Sequence[Sequence[str]]) -> StepRewards:
        """P(right so far) at the end of every step.

        Args:
          questions: as `prm.question_ids` reads them.
          steps: texts of the steps of each solution.
        Returns:
          StepRewards; a row is shorter than its steps where these take more than `max_tokens`.
        """
        started = time.perf_counter()
        rows = [
            prms.step_row(self.prm, prms.question_ids(self.prm, question), texts, self.max_tokens)
            for question, texts in zip(questions, steps, strict=True)
        ]
        rewards = [np.zeros(0, np.float32) for _ in rows]
        live = [i for i, (_, places) in enumerate(rows) if places]
        live.sort(key=lambda i: len(rows[i][0]))
        start = 0
        for size in batching.chunk_plan(len(live), self.chunk_rows, self._multiple):
            part = live[start : start + size]
            width = batching.pick_bucket(
                widths(self.max_tokens), max(len(rows[i][0]) for i in part)
            )
            tokens, mask = batching.pad_right([rows[i][0] for i in part], width, size, 0)
            placed = sharding.to_global((tokens, mask), self._rows)
            logits = sharding.to_host(self.prm.apply(self.prm.params, *placed))
            for n, i in enumerate(part):
                rewards[i] = prms.right_probability(logits[n, rows[i][1]])
            start += size
        read = np.zeros(len(rows), int)
        read[live] = [len(rows[i][0]) for i in live]
        self.tokens_read += int(read.sum())
        self.seconds += time.perf_counter() - started
        return StepRewards(rewards, read)


def widths(max_tokens: int) -> tuple[int, ...]:
    """Widths that rows are padded to: a quarter, a half, all of `max_tokens`.

    Example:
      >>> widths(48)
      (12, 24, 48)
    """
    return tuple(sorted({-(-max_tokens // part) for part in (4, 2, 1)}))


def recorded_f1(evaluation: Any, threshold: float) -> float:
    """F1 that a record gives for a threshold: that of the nearest one which was measured.

    Args:
      evaluation: contents of evaluation.json.
      threshold: in (0, 1].
    Returns:
      F1 in [0, 1].
    Raises:
      ValueError: the record holds no F1 by threshold.
    Example:
      >>> recorded_f1({"f1_by_threshold": {"0.5": 0.7, "0.8": 0.6}}, 0.75)
      0.6
    """
    try:
        table = {float(name): float(f1) for name, f1 in evaluation["f1_by_threshold"].items()}
        return table[min(table, key=lambda measured: abs(measured - threshold))]
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"no F1 by threshold in it: {error!r}") from error


def check_evaluation(folder: pathlib.Path, settings: ml_collections.ConfigDict) -> None:
    """Refuse a process reward model that was never evaluated; warn about a weak one.

    Args:
      folder: of the model.
      settings: `config.locate`.
    Raises:
      FileNotFoundError: no record, and `prm_unevaluated` is False.
      ValueError: a damaged record.
    """
    path = folder / prms.EVALUATION_FILE
    if not path.is_file():
        if settings.prm_unevaluated:
            return
        raise FileNotFoundError(
            f"{path}: missing, so nobody knows how well this model finds first errors; evaluate it with"
            f" jaxrl-reason train-prm --config.prm.start={folder} --config.prm.updates=0 --config.prm.eval_path=FILE"
            " (of ProcessBench), or accept it with"
            " --config.locate.prm_unevaluated=true"
        )
    try:
        f1 = recorded_f1(json.loads(path.read_text()), settings.prm_threshold)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if f1 < settings.prm_min_f1:
        warnings.warn(
            f"{path}: F1 = {f1:.3f} at locate.prm_threshold = {settings.prm_threshold:g}, below locate.prm_min_f1 ="
            f" {settings.prm_min_f1:g}: many prefixes will be rewarded or penalised wrongly; train it longer, or choose"
            " another threshold",
            stacklevel=2,
        )


def longest_row(shapes: batching.Shapes) -> int:
    """Tokens of a row for completions of a run: prompt and completion, and an eighth more, at least 16, for step ends.

    Example:
      >>> longest_row(batching.Shapes(prompt=9, completion=23, repair_prompt=0, chunk_rows=1))
      48
    """
    longest = shapes.prompt + shapes.completion
    return longest + max(longest // 8, 16)
