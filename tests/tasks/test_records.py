"""Records: every form of a file, packed or not, gives the same; every other form is refused by its name.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

from __future__ import annotations

import bz2
import csv
import decimal
import gzip
import io
import json
import lzma
import pickle
import zipfile

import pyarrow
import pytest
from pyarrow import parquet

from jaxrl_reason.tasks import records, remote
from jaxrl_reason.tasks.maths import Maths

ROWS = [
    {"question": "What is 1 + 1?", "answer": "2"},
    {"question": 'Say "a, b"\nin two lines.', "answer": "a, b"},
    {"question": "Wie groß ist π?", "answer": "3"},
]


def jsonl(rows=ROWS) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_csv(delimiter=",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["question", "answer"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def as_parquet() -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), out)
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    return pyarrow.compress(data, "zstd", asbytes=True)


FILES = {
    "a.jsonl": jsonl(),
    "a.txt": jsonl(),
    "bom.jsonl": b"\xef\xbb\xbf" + jsonl(),
    "windows.jsonl": b"\xef\xbb\xbf" + jsonl().replace(b"\n", b"\r\n\r\n"),
    "no_end.jsonl": b"\n \n" + jsonl().rstrip(),
    "list.json": json.dumps(ROWS, indent=2).encode(),
    "list.jsonl": b"\xef\xbb\xbf \n" + json.dumps(ROWS).encode(),
    "a.csv": as_csv(),
    "a.CSV": b"\xef\xbb\xbf" + as_csv(";"),
    "a.tsv": as_csv("\t"),
    "table": as_csv(),
    "a.parquet": as_parquet(),
    "a.PARQUET": as_parquet(),
    "part-0": as_parquet(),
    "a.jsonl.gz": gzip.compress(jsonl()),
    "a.jsonl.zst": zstd(jsonl()),
    "a.csv.gz": gzip.compress(as_csv()),
    "a.json.bz2": bz2.compress(json.dumps(ROWS).encode()),
    "a.jsonl.xz": lzma.compress(jsonl()),
    "a.parquet.zst": zstd(as_parquet()),
    "packed": gzip.compress(jsonl()),
}


@pytest.mark.parametrize("name", FILES)
def test_every_form_gives_the_same_records(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    found = list(records.read_records(tmp_path / name))
    texts = [{k: v.replace("\r\n", "\n") for k, v in record.fields.items()} for record in found]
    assert texts == ROWS
    assert len({record.place for record in found}) == len({r.number for r in found}) == 3


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a.jsonl", jsonl())
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zipped(), "ZIP"),
        (pickle.dumps(ROWS), "pickle"),
        (b"ARROW1\0\0...", "Arrow file"),
        (b"\xff\xff\xff\xff\x10\0", "Arrow stream"),
        (b"SQLite format 3\0", "SQLite"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (jsonl().decode().encode("utf-16"), "UTF-16"),
        (b"\x01\0\x02\0", "binary file"),
        (gzip.compress(jsonl())[:-20], "cannot be unpacked as gzip"),
        (zstd(jsonl())[:-4], "cannot be unpacked as zstd|line"),
        (gzip.compress(zipped()), "ZIP"),
    ],
)
def test_other_forms_are_refused_by_name(tmp_path, data, words):
    path = tmp_path / "data"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{path}.*({words})"):
        list(records.read_records(path))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", jsonl() + b'{"question": \n', "line 4: "),
        ("a.jsonl", jsonl() + b"[1]\n", "line 4: a list; must be an object"),
        ("a.jsonl", b'{\n  "question": "q"\n}\n', "line 1: .*inside a list alone"),
        ("a.jsonl.gz", gzip.compress(jsonl() + b"{\n"), "line 4: "),
        ("a.json", b'[{"question": "q"},\n {"answer" 1}]', "line 2 column"),
        ("a.json", b'[{"question": "q"}, 3]', "item 2: a int"),
        ("a.csv", b"question,answer\nq,1\nq,1,2\n", "line 3: .*3 cells, and 2 in the header"),
        ("a.csv", b'question,answer\n"q,1\n', "line 2: cannot be read as CSV"),
        ("a.csv", b"question,question\nq,1\n", "twice in the header"),
        ("a.parquet", b"question", "does not begin with PAR1"),
    ],
)
def test_what_breaks_a_form_is_named_by_file_and_place(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}.*{words}"):
        list(records.read_records(tmp_path / name))


def test_columns_of_numbers_mean_what_they_show(tmp_path):
    table = pyarrow.table(
        {
            "problem": ["a", "b", "c"],
            "short": pyarrow.array([0.3, 2.5, None], pyarrow.float32()),
            "answer": pyarrow.array([decimal.Decimal("0.300"), decimal.Decimal("12"), None]),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    found = [record.fields["short"] for record in records.read_records(tmp_path / "a.parquet")]
    assert found == [0.3, 2.5, None]
    with pytest.warns(UserWarning, match="1 of 3 .*\n  row 3: no gold answer"):
        task = Maths(tmp_path / "a.parquet")
    assert [p.answer for p in task.problems] == ["0.3", "12"]


def test_messages_in_cells_of_a_table(tmp_path):
    turns = [{"role": "system", "content": "Base 8."}, {"role": "user", "content": "7 + 1?"}]
    for text in (json.dumps(turns), str(turns)):
        with open(tmp_path / "a.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["prompt", "answer"], [text, "10"]])
        (problem,) = Maths(tmp_path / "a.csv").problems
        assert (problem.prompt, problem.meta["messages"]) == ("7 + 1?", (turns[0],))


def test_home_folders_and_folders_that_hide_an_owner(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(jsonl())
    for path in ("~/a.jsonl", "~/*.jsonl"):
        assert remote.files(path) == [str(tmp_path / "a.jsonl")]
    (tmp_path / "owner").mkdir()
    with pytest.raises(
        FileNotFoundError, match="the folder owner here hides owner/name of the hub"
    ):
        remote.files("owner/name:train.jsonl")
