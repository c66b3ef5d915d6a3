"""Problems prepared once as ArrayRecord, by a TFDS builder, and read by index without TensorFlow.

Host side. Reads: the file of a task. Writes: data_dir/<task>-<content>/, at the first use of a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import tensorflow_datasets as tfds

from jaxrl_reason.tasks import remote
from jaxrl_reason.types import Problem
from jaxrl_reason.verify import sandbox_tests


class ReasoningProblems(tfds.core.GeneratorBasedBuilder):
    """Problems with gold answers, in the order of their file; what is missing is "".

    Args:
      source: makes the problems; called only if they must be prepared.
      kwargs: `data_dir` and others of the base class.
    """

    VERSION = tfds.core.Version("1.2.0")

    def __init__(self, *, source: Callable[[], Iterable[Problem]], **kwargs: Any):
        self._source = source
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        names = ("id", "prompt", "answer", "reference", "pass_rate", *_JSON)
        features = {name: tfds.features.Text() for name in names}  # a float feature keeps 32 bits
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # index i is record i of the file
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, problem in enumerate(self._source()):
            yield (
                i,
                {
                    "id": problem.id,
                    "prompt": problem.prompt,
                    "answer": problem.answer,
                    "reference": problem.reference or "",
                    "pass_rate": _rate_text(problem),
                }
                | {n: json.dumps(problem.meta[n]) if n in problem.meta else "" for n in _JSON},
            )


# Parts of `Problem.meta` that stand in a record as JSON.
_JSON = ("tests", "steps", "messages")


def _rate_text(problem: Problem) -> str:
    return repr(problem.meta["pass_rate"]) if "pass_rate" in problem.meta else ""


class Prepared(Sequence[Problem]):
    """Problems of an ArrayRecord data source; each is read when it is asked for."""

    def __init__(self, records: Any):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return _problem(self._records[index % len(self)])

    def __iter__(self) -> Iterator[Problem]:
        # Records lie together in compressed blocks: reading many at once halves the time.
        for start in range(0, len(self), _BLOCK):
            block = list(range(start, min(start + _BLOCK, len(self))))
            yield from map(_problem, self._records.__getitems__(block))


_BLOCK = 256


def _problem(record: Mapping[str, bytes]) -> Problem:
    fields = {key: value.decode() for key, value in record.items()}
    rate, tests, steps, messages = (fields.pop(name) for name in ("pass_rate", *_JSON))
    reference = fields.pop("reference") or None
    meta: dict[str, Any] = {"pass_rate": float(rate)} if rate else {}
    if tests:
        meta["tests"] = sandbox_tests.from_json(json.loads(tests))
    if steps:
        meta["steps"] = tuple(json.loads(steps))
    if messages:
        meta["messages"] = tuple(json.loads(messages))
    return Problem(**fields, reference=reference, meta=meta)


def problems(
    path: str | os.PathLike,
    name: str,
    data_dir: str | os.PathLike,
    source: Callable[[], Iterable[Problem]],
    *,
    settings: str = "",
) -> Prepared:
    """The problems of a file, from `data_dir` where this very content was prepared before.

    Args:
      path: file or files that `source` reads (`remote.files`); their bytes name the prepared data, so that changed ones
        are prepared anew.
      name: of the task; part of the same name.
      data_dir: folder, made where it is missing.
      source: makes the problems, in order; called only if they must be prepared.
      settings: whatever else decides what `source` makes; part of the same name.
    Returns:
      Problems in the order of the file.
    Raises:
      FileNotFoundError: no such file.
      ValueError: what `source` raises.
    """
    data_dir = os.fspath(data_dir)
    digest = hashlib.sha256()
    for one in remote.files(path):
        with open(one, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(settings.encode())
    content = digest.hexdigest()[:16]
    folder = os.path.join(data_dir, f"{name}-{content}")
    builder = ReasoningProblems(source=source, data_dir=folder, file_format="array_record")
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(sys.stderr):  # results go to standard output, its news do not
        builder.download_and_prepare()
    return Prepared(builder.as_data_source(split="train"))
