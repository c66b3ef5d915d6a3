"""Sources: files, filters, evaluation files, and problems prepared on disk.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

import json
import os
import subprocess
import sys
import warnings

import pyarrow
import pytest
from pyarrow import parquet

from jaxrl_reason import evaluate
from jaxrl_reason.tasks import records, schedule
from jaxrl_reason.tasks.gsm8k import Gsm8k
from jaxrl_reason.tasks.maths import Maths
from jaxrl_reason.tasks.sources import Source

RECORDS = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(8)]


def _write(folder, rows, name="train.jsonl"):
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


def ids(task):
    return sorted(p.id for p in task.batch(0, 0, len(task)))


def test_parquet_gives_what_jsonl_gives(tmp_path):
    path = str(tmp_path / "train.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path)
    both = [Gsm8k(p) for p in (path, _write(tmp_path, RECORDS))]
    assert both[0].batch(1, 2, 5) == both[1].batch(1, 2, 5)


def test_files_that_are_no_records(tmp_path):
    fake = tmp_path / "x.parquet"
    fake.write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(ValueError, match="x.parquet: cannot be read as Parquet"):
        list(records.read_records(fake))
    parquet.write_table(
        pyarrow.Table.from_pylist([{"question": "q", "answer": "#### 1"}, {"question": None}]), fake
    )
    with pytest.warns(
        UserWarning, match="x.parquet: 1 of 2 .*\n  row 2: no question .*question = None"
    ):
        Gsm8k(fake)
    nested = _write(tmp_path, ['{"question": ' + "[" * 100_000])
    with pytest.raises(ValueError, match="train.jsonl, line 1: "):
        Gsm8k(nested)
    with pytest.warns(UserWarning, match="line 2: the gold answer cannot be read: '5 = = 5'"):
        Gsm8k(_write(tmp_path, [RECORDS[0], {"question": "q", "answer": "#### 5 = = 5"}]))


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    wide = tmp_path / "wide.jsonl"
    wide.write_bytes(json.dumps(RECORDS[0]).encode("utf-16"))
    with pytest.raises(ValueError, match="wide.jsonl: text in UTF-16; .*each line must hold one"):
        Gsm8k(wide)
    with pytest.raises(ValueError, match="line 1: no question in .*: it has q, answer"):
        Gsm8k(_write(tmp_path, [{"q": "Q", "answer": "#### 1"}]))
    with pytest.raises(
        ValueError, match="1 of 1 problems cannot be used:\n  line 1: the gold answer"
    ):
        Maths(_write(tmp_path, [{"problem": "P", "answer": "= ="}]))
    broken = tmp_path / "broken.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(RECORDS), broken)
    data = bytearray(broken.read_bytes())
    data[10:40] = b"\xff" * 30
    broken.write_bytes(data)
    with pytest.raises(ValueError, match="broken.parquet, behind row 0: cannot be read"):
        Gsm8k(broken)


def test_the_schedule_does_not_depend_on_what_was_asked_before():
    late = schedule.epoch_indices(7, 3, 1_000_000, 5, 2)
    schedule.epoch_indices(7, 3, 0, 5, 2)
    assert late == schedule.epoch_indices(7, 3, 1_000_000, 5, 2)
    assert schedule.epoch_indices(7, 3, 0, 0) == []


def test_problems_of_the_evaluation_file_are_asked_there_alone(tmp_path):
    test = [
        {"question": "what  is 3 + 1 ?", "answer": "#### 4"},  # RECORDS[3] in other clothes
        {"question": "What is 3 - 1?", "answer": "#### 2"},
        {"question": "A question that is much longer than any of the others in this file?", "answer": "#### 2"},
    ]  # fmt: skip
    source = Source(_write(tmp_path, RECORDS), eval_path=_write(tmp_path, test, "test.jsonl"))
    with pytest.warns(
        UserWarning, match="1 of 8 problems also stand in .*the first: gsm8k-4 is gsm8k-eval-1"
    ):
        task = Gsm8k(source)
    assert len(task) == 7 and "gsm8k-4" not in ids(task)
    asked = evaluate.whole_task(task)
    assert ids(asked) == ["gsm8k-eval-1", "gsm8k-eval-2", "gsm8k-eval-3"]
    # One engine serves both.
    assert task.prompt_tokens == asked.prompt_tokens
    assert max(len(asked.policy_prompt(p)) for p in asked.batch(0, 0, 3)) + 1 == task.prompt_tokens
    assert evaluate.whole_task(Gsm8k(source.path)).batch(0, 0, 8)[0].id.startswith("gsm8k-")
    with pytest.raises(ValueError, match="none is left to train on"):
        Gsm8k(source._replace(eval_path=source.path))


def test_pass_rates_from_a_file(tmp_path):
    rates = [{"id": f"gsm8k-{i}", "pass_rate": i / 8} for i in range(1, 7)]
    rates[0] = {
        "problem": "gsm8k-1",
        "rewards": [1.0, 0, 0, 0, 0, 0, 0, 0.0],
        "greedy": {},
    }  # of `evaluate`
    rates.append({"id": "gsm8k-7", "num_correct": 2, "num_samples": 4})
    source = Source(_write(tmp_path, RECORDS), pass_rates=_write(tmp_path, rates, "rates.jsonl"))
    # gsm8k-8 was never measured.
    assert ids(Gsm8k(source._replace(min_pass_rate=0.25, max_pass_rate=0.5))) == [
        f"gsm8k-{i}" for i in (2, 3, 4, 7)
    ]
    assert ids(Gsm8k(source._replace(max_pass_rate=0.2))) == ["gsm8k-1"]
    with pytest.raises(ValueError, match=r"no pass rate in \[0.9, 1.0\] among 7 problems"):
        Gsm8k(source._replace(min_pass_rate=0.9))
    twice = _write(tmp_path, [{"id": "math-1", "pass_rate": 0.5}] * 2, "twice.jsonl")
    with pytest.raises(ValueError, match="twice.jsonl, line 2: a second pass rate of 'math-1'"):
        Gsm8k(source._replace(pass_rates=twice, min_pass_rate=0.1))
    other = _write(tmp_path, [{"id": "math-1", "pass_rate": 0.5}], "other.jsonl")
    with pytest.raises(
        ValueError, match="other.jsonl: says no pass rate of any problem .*'gsm8k-1'"
    ):
        Gsm8k(source._replace(pass_rates=other, min_pass_rate=0.1))


@pytest.mark.parametrize(
    "line",
    ['{"pass_rate": 0.5}', '{"problem": "a", "rewards": []}',
     '{"id": "a"}', '{"id": "a", "pass_rate": 2}', '{"id": "a", "pass_rate": true}',
     '{"id": 3, "pass_rate": 0.5}', '{"id": "a", "num_correct": 1, "num_samples": 0}',
     '{"id": "a", "pass_rate": NaN}', '{"id": "a", "num_correct": 5, "num_samples": 4}'],
)  # fmt: skip
def test_bad_pass_rates_are_named_by_file_and_line(tmp_path, line):
    rates = _write(tmp_path, ['{"id": "a", "pass_rate": 0.5}', line], "rates.jsonl")
    with pytest.raises(ValueError, match='rates.jsonl, line 2: must hold "id" and "pass_rate"'):
        Gsm8k(Source(_write(tmp_path, RECORDS), pass_rates=rates, min_pass_rate=0.1))


PREPARE = """
import sys
from jaxrl_reason import config, tasks
c = config.base().task
c.name, c.path, c.data_dir, c.verify_workers = "math", *sys.argv[1:], 0
c.min_pass_rate = 0.1
task = tasks.make_task(c)
problems = task.batch(5, 6, 7)
assert "tensorflow_datasets" in sys.modules and "tensorflow" not in sys.modules
print([(p.id, p.prompt, p.answer, p.reference, p.meta["pass_rate"]) for p in problems])
"""


def test_prepared_once_and_read_without_tensorflow(tmp_path):
    rows = [
        {"problem": f"π {i}?", "answer": f"{i}", "pass_rate": i / 10} | ({"solution": "Count."} if i % 2 else {})
        for i in range(9)
    ]  # fmt: skip
    path, folder = _write(tmp_path, rows), tmp_path / "prepared"
    ours = Maths(Source(path, min_pass_rate=0.1))
    expected = [
        (p.id, p.prompt, p.answer, p.reference, p.meta["pass_rate"]) for p in ours.batch(5, 6, 7)
    ]
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, path, str(folder)], capture_output=True, text=True, env=os.environ
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{expected}\n"  # exactly: what TFDS says goes elsewhere
    (made,) = folder.glob("*/*/*/*.array_record*")
    before = made.stat().st_mtime_ns
    source = Source(path, data_dir=str(folder), min_pass_rate=0.1)
    again = Maths(source)
    assert made.stat().st_mtime_ns == before
    assert again.batch(5, 6, 7) == ours.batch(5, 6, 7)
    assert again.prompt_tokens == ours.prompt_tokens
    assert again.repair_prompt_tokens == ours.repair_prompt_tokens
    # A changed file is another content; a broken one leaves nothing that looks prepared.
    _write(tmp_path, [*rows, {"problem": "new", "answer": "1", "pass_rate": 1}])
    assert len(Maths(source)) == len(again) + 1
    _write(tmp_path, [*rows[:9], "{broken"])
    for _ in range(2):
        with pytest.raises(ValueError, match="train.jsonl, line 10: "):
            Maths(source)


def test_indices_of_prepared_problems(tmp_path):
    from jaxrl_reason.tasks import prepared
    from jaxrl_reason.types import Problem

    made = [Problem(f"a-{i}", "p", "1") for i in range(5)]
    path = _write(tmp_path, RECORDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = prepared.problems(path, "a", tmp_path / "data", lambda: made)
    assert [*found] == found[:] == made and found[-1] == made[4] and found[1:3] == made[1:3]
    with pytest.raises(IndexError):
        found[5]
