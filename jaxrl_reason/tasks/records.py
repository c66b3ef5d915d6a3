"""Records of a file, of any of the forms below, each with its place in it, so that every error can name it.

Host side. Reads: the files that it is given. Writes: nothing.

| form | told by |
| --- | --- |
| JSONL: one object a line, lines of white space between them | the first sign, { |
| JSON: a list of objects | the first sign, [ |
| CSV, TSV: a header, then rows; cells may hold JSON | the suffix, or a header with a known name |
| Parquet | the first four bytes |
| each of these in gzip, zstd, bzip2 or xz | the first bytes |

Text is UTF-8, with or without a byte order mark. All else is refused by its name.
"""

from __future__ import annotations

import bz2
import collections
import csv
import gzip
import io
import itertools
import json
import lzma
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jaxrl_reason.tasks import remote

_ROWS = 1024  # of Parquet that are held at once
_HEAD = 512  # bytes that tell the form
_HEADERS = re.compile(
    r"\b(?:question|problem|prompt|answer|solution|completion|messages|id)\b", re.I
)


class Record(NamedTuple):
    """One record and where it stands."""

    place: str  # "line 3", "row 3" of Parquet, "item 3" of a list; of several files, with the file's name
    number: int  # of that line, row or item, from 1; of several files, counted through
    fields: dict[str, Any]


class Unusable(ValueError):
    """A record of which nothing can be made: left out, and counted by its reason.

    Args:
      reason: shared by all records with this fault.
      detail: what is wrong in this one.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


class Faults:
    """Records of a file that cannot be used, counted by reason.

    Args:
      path: of the file.
    """

    def __init__(self, path: str):
        self.path, self.used = path, 0
        self._counts: collections.Counter[str] = collections.Counter()
        self._first: dict[str, str] = {}

    def add(self, place: str, error: ValueError) -> None:
        """Count one."""
        reason = error.reason if isinstance(error, Unusable) else "the record is wrong"
        self._counts[reason] += 1
        self._first.setdefault(reason, f"{place}: {error}")

    def say(self, what: str) -> None:
        """Warn once of all, with the first of each reason; an error if nothing else was there.

        Args:
          what: a word for one of them.
        """
        left_out = self._counts.total()
        if not self.used and not left_out:
            raise ValueError(f"{self.path}: holds no {what}")
        said = f"{self.path}: {left_out} of {self.used + left_out} {what}s cannot be used:"
        for reason, count in self._counts.most_common():
            said += f"\n  {self._first[reason]}" + f" ({count} such {what}s)" * (count > 1)
        if not self.used:
            raise ValueError(said)
        if left_out:
            warnings.warn(said, stacklevel=2)


def is_number(value: Any) -> bool:
    """Whether a field holds a number; JSON's true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_records(path: str | os.PathLike, columns: Sequence[str] | None = None) -> Iterator[Record]:
    """Records in the order of the file, or files.

    Args:
      path: of the file, or of several (`remote.files`).
      columns: the only ones that are read of a Parquet file, where it has them (in small letters; the file may write
        them otherwise); None: all. Other forms have no columns.
    Yields:
      Records; values are what the file says, not yet checked.
    Raises:
      FileNotFoundError: no such file.
      ValueError: a file of another form, or a place in it that breaks its form; names file and place.
    """
    return _records(remote.files(path), columns)


def _records(paths: Sequence[str], columns: Sequence[str] | None) -> Iterator[Record]:
    before = 0
    for path in paths:
        number = 0
        for record in _of_file(path, columns):
            number = record.number
            if len(paths) == 1:
                yield record
            else:
                place = f"{os.path.basename(path)}, {record.place}"
                yield Record(place, before + number, record.fields)
        before += number


# --- forms -----------------------------------------------------------------------------------------

_PACKED: dict[bytes, tuple[str, Callable[[str], io.BufferedIOBase]]] = {
    b"\x1f\x8b": ("gzip", lambda path: gzip.open(path, "rb")),
    b"BZh": ("bzip2", lambda path: bz2.open(path, "rb")),
    b"\xfd7zXZ\0": ("xz", lambda path: lzma.open(path, "rb")),
    b"\x28\xb5\x2f\xfd": ("zstd", lambda path: _zstd(path)),
}
# What other files begin with, and what to do about them.
_OTHERS = {
    b"PK\x03\x04": "a ZIP archive (an Excel sheet is one); unpack it",
    b"PK\x05\x06": "an empty ZIP archive",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"ARROW1": "an Arrow file; write it as Parquet",
    b"\xff\xff\xff\xff": "an Arrow stream, as the cache of Hugging Face datasets holds it; write it as Parquet",
    b"PARE": "a Parquet file that is encrypted; write it in the clear",
    b"FEA1": "a Feather file; write it as Parquet",
    b"Obj\x01": "an Avro file; write it as Parquet",
    b"ORC": "an ORC file; write it as Parquet",
    b"SQLite format 3": "an SQLite database; write the table as Parquet",
    b"\x89HDF": "an HDF5 file; write it as Parquet",
    b"\x93NUMPY": "a NumPy array; write it as Parquet",
    b"%PDF": "a PDF",
    b"\x80": "a pickle, which may run programs when it is read; write it as JSONL",
    b"\xff\xfe": "text in UTF-16; write it in UTF-8: each line must hold one JSON object",
    b"\xfe\xff": "text in UTF-16; write it in UTF-8: each line must hold one JSON object",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`",
    b"<": "a page in HTML or XML; download the file itself",
    b"---\n": "YAML; write it as JSONL",
}


def _zstd(path: str) -> io.BufferedIOBase:
    import pyarrow

    return io.BufferedReader(_Readable(pyarrow.input_stream(path, compression="zstd")))


class _Readable(io.RawIOBase):
    """A stream of pyarrow as one of Python's."""

    def __init__(self, stream: Any):
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _of_file(path: str, columns: Sequence[str] | None) -> Iterator[Record]:
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    packing = next((kind for kind in _PACKED if head.startswith(kind)), None)
    if packing is None:
        if head.startswith(b"PAR1"):
            yield from _parquet(path, path, columns)
        else:
            with open(path, "rb") as file:
                yield from _of_text(path, path, file, head)
        return
    name, unpack = _PACKED[packing]
    inner = os.path.splitext(path)[0]
    broken = (EOFError, OSError, zlib.error, lzma.LZMAError)
    try:
        with unpack(path) as file:
            head = file.read(_HEAD)
            if head.startswith(b"PAR1"):
                yield from _parquet(path, io.BytesIO(head + file.read()), columns)
        if not head.startswith(b"PAR1"):
            with unpack(path) as file:
                yield from _of_text(path, inner, file, head)
    except broken as error:
        raise ValueError(f"{path}: cannot be unpacked as {name}: {error}") from error


def _of_text(path: str, name: str, file: io.BufferedIOBase, head: bytes) -> Iterator[Record]:
    for start, what in _OTHERS.items():
        if head.startswith(start):
            raise ValueError(f"{path}: {what}; a data set is JSONL, JSON, CSV or Parquet")
    if head[257:262] == b"ustar":
        raise ValueError(f"{path}: a tar archive; unpack it, and name its files")
    text = head.decode("utf-8-sig", "replace").lstrip()
    suffix = os.path.splitext(name)[1].lower()
    if b"\0" in head:
        raise ValueError(
            f"{path}: a binary file of no known form; a data set is JSONL, JSON, CSV or Parquet"
        )
    if suffix in (".parquet", ".pq") and text[:1] not in ("{", "["):
        raise ValueError(f"{path}: cannot be read as Parquet: it does not begin with PAR1")
    if suffix in (".csv", ".tsv") or _is_csv(text):
        return _csv(path, file)
    if text.startswith("["):
        return _list(path, file)
    return _jsonl(path, file)


def _is_csv(text: str) -> bool:
    first = text.partition("\n")[0]
    return (
        text[:1] not in ("{", "[")
        and bool(_HEADERS.search(first))
        and any(d in first for d in ",;\t")
    )


def _jsonl(path: str, file: io.BufferedIOBase) -> Iterator[Record]:
    for number, line in enumerate(file, 1):
        if not (text := line.removeprefix(b"\xef\xbb\xbf")).strip():
            continue
        try:
            fields = json.loads(text.decode())
        except (ValueError, RecursionError) as error:  # UTF-8 errors are ValueErrors too
            whole = (
                "; an object over several lines is read inside a list alone, [...]"
                if text.strip() == b"{"
                else ""
            )
            raise ValueError(
                f"{path}, line {number}: {error}; each line must hold one JSON object, in UTF-8{whole}"
            ) from error
        if not isinstance(fields, dict):
            kind = type(fields).__name__
            raise ValueError(f"{path}, line {number}: a {kind}; must be an object, {{...}}")
        yield Record(f"line {number}", number, fields)


def _list(path: str, file: io.BufferedIOBase) -> Iterator[Record]:
    try:
        items = json.loads(file.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: {error}; a file that begins with [ must be one JSON list of objects"
        ) from error
    for number, fields in enumerate(items, 1):
        if not isinstance(fields, dict):
            raise ValueError(
                f"{path}, item {number}: a {type(fields).__name__}; must be an object, {{...}}"
            )
        yield Record(f"item {number}", number, fields)


def _csv(path: str, file: io.BufferedIOBase) -> Iterator[Record]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    place = 1
    try:
        first = text.readline()
        delimiter = max(",;\t", key=first.count)
        csv.field_size_limit(1 << 30)
        rows = csv.reader(itertools.chain([first], text), delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(rows, [])]
        if len(set(header)) < len(header):
            raise ValueError("a name stands twice in the header")
        place = rows.line_num + 1
        for row in rows:
            if len(row) != len(header) and row:
                raise ValueError(f"{len(row)} cells, and {len(header)} in the header")
            if any(cell.strip() for cell in row):
                fields = {name: _cell(cell) for name, cell in zip(header, row, strict=True)}
                yield Record(f"line {place}", place, fields)
            place = rows.line_num + 1
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path}, line {place}: cannot be read as CSV: {error}") from error
    finally:
        text.detach()  # the caller closes the file


def _cell(cell: str) -> Any:
    """A cell; JSON where it begins like a list of objects, or like an object with names."""
    if cell.startswith(("[{", '{"')):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _parquet(path: str, source: Any, columns: Sequence[str] | None) -> Iterator[Record]:
    from pyarrow import ArrowInvalid, parquet

    try:
        file = parquet.ParquetFile(source)
    except (ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {error}") from error
    with file:
        schema = file.schema_arrow
        wanted = [n for n in schema.names if columns is None or n.lower() in columns]
        short = {n for n in wanted if str(schema.field(n).type) in ("float", "halffloat")}
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
                fields |= {name: _short_float(fields[name]) for name in short}
                yield Record(f"row {number}", number, fields)


def _short_float(value: float | None) -> float | None:
    """A float of 32 bits or fewer by its own digits: 0.1, and not the 0.10000000149 that it is in 64."""
    import numpy as np

    return None if value is None else float(str(np.float32(value)))
