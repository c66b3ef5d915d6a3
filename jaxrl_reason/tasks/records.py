"""Records of a file, JSONL or Parquet, each with its place in it, so that every error can name it.

Host side. Reads: one file. Writes: nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jaxrl_reason.tasks import remote

_ROWS = 1024  # of Parquet that are held at once


class Record(NamedTuple):
    """One record and where it stands."""

    place: str  # "line 3" of a JSONL file, "row 3" of a Parquet file; of several files, with the file's name
    number: int  # of that line or row, from 1; of several files, counted through
    fields: dict[str, Any]


def read_records(path: str | os.PathLike, columns: Sequence[str] | None = None) -> Iterator[Record]:
    """Records in the order of the file, or files; Parquet by the suffix .parquet, everything else is JSONL.

    Args:
      path: of the file, or of several (`remote.files`); lines of white space in a JSONL file hold no record.
      columns: the only ones that are read of a Parquet file, where it has them (in small letters; the file may write
        them otherwise); None: all. JSONL has no columns.
    Yields:
      Records; values are what JSON or Parquet say, not yet checked.
    Raises:
      FileNotFoundError: no such file.
      ValueError: a line that is no JSON object, or a file that is no Parquet; names file and line.
    """
    return _records(remote.files(path), columns)


def _records(paths: Sequence[str], columns: Sequence[str] | None) -> Iterator[Record]:
    before = 0
    for path in paths:
        number = 0
        for record in _parquet(path, columns) if path.endswith(".parquet") else _jsonl(path):
            number = record.number
            if len(paths) == 1:
                yield record
            else:
                place = f"{os.path.basename(path)}, {record.place}"
                yield Record(place, before + number, record.fields)
        before += number


def _jsonl(path: str) -> Iterator[Record]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:  # UTF-8 errors are ValueErrors too
                raise ValueError(
                    f"{path}, line {number}: {error}; each line must hold one JSON object, in UTF-8"
                ) from error
            if not isinstance(fields, dict):
                kind = type(fields).__name__
                raise ValueError(f"{path}, line {number}: a {kind}; must be an object, {{...}}")
            yield Record(f"line {number}", number, fields)


def _parquet(path: str, columns: Sequence[str] | None) -> Iterator[Record]:
    from pyarrow import ArrowInvalid, parquet

    try:
        file = parquet.ParquetFile(path)
    except (ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {error}") from error
    with file:
        names = file.schema_arrow.names
        wanted = names if columns is None else [n for n in names if n.lower() in columns]
        number, batches = 0, file.iter_batches(batch_size=_ROWS, columns=wanted)
        while True:
            try:
                batch = next(batches, None)
            except (ArrowInvalid, OSError) as error:
                place = f"behind row {number}"
                raise ValueError(f"{path}, {place}: cannot be read as Parquet: {error}") from error
            if batch is None:
                return
            for fields in batch.to_pylist() if wanted else [{}] * batch.num_rows:
                number += 1
                yield Record(f"row {number}", number, fields)
