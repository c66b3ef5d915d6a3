"""A run folder belongs to one process, one config and one content of the data; what may change is said."""

from __future__ import annotations

import ast
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import ml_collections
import pytest

import jaxrl_reason
from jaxrl_reason import config as config_lib
from jaxrl_reason import files, run_changes, run_folder

PACKAGE = pathlib.Path(jaxrl_reason.__file__).parent
DATA = ("task.path", "task.eval_path")


def make_config(folder: pathlib.Path, **changes) -> ml_collections.ConfigDict:
    values = {"run_dir": folder} | {k.replace("__", "."): v for k, v in changes.items()}
    return config_lib.override(config_lib.recipe("gspo"), [f"{k}={v}" for k, v in values.items()])


def begin(folder: pathlib.Path, **changes) -> None:
    run_folder.claim(folder, make_config(folder, **changes), resume=False, data=DATA)


def go_on(folder: pathlib.Path, update: int | None = 3, **changes) -> None:
    config = make_config(folder, **changes)
    run_folder.claim(folder, config, resume=True, update=update, data=DATA)


# --- one process -----------------------------------------------------------------------------------


HOLD = """
import sys, time
from jaxrl_reason import run_folder
with run_folder.locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_kept_out_until_the_first_is_dead(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        words = f"another process trains here .process {holder.pid} on {re.escape(socket.gethostname())}."
        with pytest.raises(ValueError, match=words), run_folder.locked(folder, resume=True):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with run_folder.locked(folder, resume=True) as held:
            assert held == folder
            with pytest.raises(ValueError, match=f"process {os.getpid()} on"):
                run_folder.locked(folder).__enter__()
        with run_folder.locked(folder):
            pass


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    # Not even root may write there; the second is a folder below a file.
    for folder in ("/sys/kernel/run", str(tmp_path / "file" / "run")):
        with pytest.raises(ValueError, match="cannot be written to .*choose another") as caught:
            run_folder.locked(folder).__enter__()
        assert f"run_dir = {folder!r}" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "folder", ["gs://bucket/run", "s3://bucket", "hdfs://a/b", "gs:/bucket/run"]
)
def test_object_storage_is_refused_before_anything_is_made(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="run_dir = .*POSIX file system"):
        config_lib.override(config_lib.base(), [f"run_dir={folder}"]) and config_lib.validate(
            config_lib.override(config_lib.base(), [f"run_dir={folder}"])
        )
    with pytest.raises(ValueError, match="--out = .*POSIX file system"):
        files.local_folder(pathlib.Path(folder), "--out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_resume_leaves_nothing_behind(tmp_path):
    with pytest.raises(FileNotFoundError, match="without --resume"):
        run_folder.locked(tmp_path / "none", resume=True).__enter__()
    assert list(tmp_path.iterdir()) == []


# --- one config ------------------------------------------------------------------------------------


def test_a_resumed_run_lists_every_field_that_it_cannot_change(tmp_path):
    begin(tmp_path)
    with pytest.raises(ValueError) as caught:
        go_on(tmp_path, loss__clip_low=0.01, seed=4, optim__learning_rate=1e-5, model__source="b")
    lines = str(caught.value).splitlines()
    assert str(tmp_path / "config.json") in lines[0]
    assert lines[1:-1] == [
        "  loss.clip_low: saved 0.0003, now 0.01",
        "  model.source: saved 'tiny', now 'b'",
        "  seed: saved 0, now 4",
    ]
    assert "optim.learning_rate" in lines[-1]
    assert "rollout.prompt_length" in lines[-1]


def test_what_was_changed_is_said_once_and_written_down(tmp_path, capsys):
    begin(tmp_path, optim__learning_rate=100.0)
    go_on(tmp_path, optim__learning_rate=100.0)
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "config_changes.jsonl").exists()
    go_on(tmp_path, optim__learning_rate=1e-4, rollout__prompt_length=700)
    assert capsys.readouterr().out == (
        f"{tmp_path}: goes on from update 3 with other settings:\n"
        "  optim.learning_rate: saved 100.0, now 0.0001\n"
        "  rollout.prompt_length: saved 0, now 700\n"
    )
    go_on(tmp_path, optim__learning_rate=1e-4, rollout__prompt_length=700)
    assert capsys.readouterr().out == ""
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["optim"]["learning_rate"] == 1e-4
    (line,) = (tmp_path / "config_changes.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "update": 3,
        "changed": {"rollout.prompt_length": [0, 700], "optim.learning_rate": [100.0, 1e-4]},
    }


def test_a_resumed_run_without_a_change_writes_nothing(tmp_path):
    begin(tmp_path)
    before = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    go_on(tmp_path)
    assert {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == before


def test_a_schedule_holds_the_number_of_updates(tmp_path):
    begin(tmp_path / "a", optim__schedule="cosine")
    with pytest.raises(
        ValueError, match="num_updates: saved 100, now 50: the learning-rate schedule"
    ):
        go_on(tmp_path / "a", optim__schedule="cosine", train__num_updates=50)
    begin(tmp_path / "b")
    go_on(tmp_path / "b", train__num_updates=50)


def test_before_the_first_checkpoint_everything_may_change(tmp_path):
    begin(tmp_path, optim__microbatch_rows=7)
    go_on(tmp_path, update=None, seed=5, loss__clip_low=0.01)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 5


def test_later_phases_are_compared_field_by_field(tmp_path):
    def phases(**later) -> ml_collections.ConfigDict:
        second = config_lib.recipe("dapo")
        second.update_from_flattened_dict({k.replace("__", "."): v for k, v in later.items()})
        whole = config_lib.in_phases(config_lib.recipe("grpo"), second)
        whole.run_dir = str(tmp_path)
        return whole

    run_folder.claim(tmp_path, phases(), resume=False)
    with pytest.raises(ValueError, match=r"\n  phase 2: loss.clip_high: saved 0.28, now 0.3\n"):
        run_folder.claim(tmp_path, phases(loss__clip_high=0.3), resume=True, update=1)
    run_folder.claim(tmp_path, phases(optim__learning_rate=1e-5), resume=True, update=1)


# Fields that a message tells a user to change before the first update, or in another command.
AT_THE_START = {
    *(
        "iop.judge_url",
        "loss.old_logprobs",
        "model.source",
        "model.dtype",
        "task.path",
        "task.steps",
    ),
    *(
        "task.eval_path",
        "sft.path",
        "prm.path",
        "prm.eval_path",
        "prm.solutions",
        "eval.num_samples",
    ),
    *(
        "task.min_pass_rate",
        "task.max_pass_rate",
        "model.attention",
        "model.prompt_format",
        "lora.rank",
    ),
}


def messages() -> list[tuple[str, str]]:
    """(module, text) of every string of the package that may be part of an error, with fields in it as they stand."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) or isinstance(node, (ast.Return, ast.Assign, ast.Expr)):
                words = [
                    n.value
                    for n in ast.walk(node)
                    if isinstance(n, ast.Constant) and isinstance(n.value, str)
                ]
                text = "".join(words)
                if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                    found.append((path.name, text))
    return found


def test_every_field_that_a_message_advises_to_change_on_resume_can_be_changed():
    known = config_lib.fields(config_lib.base())
    advised: dict[str, set[str]] = {}
    for module, text in messages():
        if "--resume" not in text or module == "run_changes.py":
            continue
        for name in re.findall(r"\b[a-z]+(?:\.[a-z_]+)+\b", text):
            if name in known:
                advised.setdefault(name, set()).add(module)
    assert {"optim.learning_rate", "optim.grad_clip", "train.keep_checkpoints"} <= advised.keys()
    allowed = run_changes.FREE + run_changes.STEERING
    stuck = {n: m for n, m in advised.items() if not run_changes.matches(n, allowed)}
    # Named there as what to look at, for a start anew.
    assert stuck.keys() <= {"model.source", "model.dtype"}, stuck


def test_every_field_that_the_loop_tells_to_raise_or_lower_can_be_changed():
    known = config_lib.fields(config_lib.base())
    in_the_loop = {
        "batching.py",
        "companions.py",
        "train.py",
        "checkpoint.py",
        "judges.py",
        "audit.py",
    }
    seen = set()
    for module, text in messages():
        if module in in_the_loop:
            seen |= (
                set(re.findall(r"(?:raise|lower|or|set) ([a-z]+(?:\.[a-z_]+)+)", text))
                & known.keys()
            )
    assert {"rollout.prompt_length", "rollout.max_new_tokens"} <= seen
    allowed = run_changes.FREE + run_changes.STEERING
    stuck = {name for name in seen if not run_changes.matches(name, allowed)}
    assert stuck <= AT_THE_START, stuck


def test_patterns_name_fields_that_exist():
    known = config_lib.fields(config_lib.base())
    for pattern in run_changes.FREE + run_changes.STEERING + run_changes.DATA:
        assert any(run_changes.matches(name, (pattern,)) for name in known), pattern


# --- config.json of elsewhere ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b'{"seed": 0', b"[1, 2]", b"7", b"null", b"\xff\xfe\x00", b"[" * 9999]
)
def test_a_damaged_config_names_the_file_and_the_fix_which_works(tmp_path, content, capsys):
    begin(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="damaged.*delete it and give --resume") as caught:
        go_on(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)
    (tmp_path / "config.json").unlink()
    go_on(tmp_path)
    assert "taking the config that was given" in capsys.readouterr().out
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0


def edit(path: pathlib.Path, change) -> None:
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def test_a_config_of_an_earlier_version_lacks_fields_that_take_their_default(tmp_path, capsys):
    begin(tmp_path)

    def age(fields):
        del fields["train"]["preempt_grace_s"], fields["lora"]
        fields["rollout"] |= {
            "top_k": 0,
            "top_p": 1.0,
        }  # they are gone; so much as these values said nothing

    edit(tmp_path / "config.json", age)
    go_on(tmp_path)
    said = capsys.readouterr().out
    assert "config.json: of another version" in said
    for name in ("train.preempt_grace_s", "lora.rank", "lora.alpha"):
        assert name in said
    # Other than the default is a change, as ever.
    edit(tmp_path / "config.json", lambda fields: fields.pop("lora"))
    with pytest.raises(ValueError, match="lora.rank: saved 0, now 8"):
        go_on(tmp_path, lora__rank=8)


def test_what_an_earlier_version_did_is_not_taken_for_the_default_of_today(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("{}\n")
    folder, changes = tmp_path / "run", {"task__name": "math", "task__path": path}
    begin(folder, **changes)
    edit(folder / "config.json", lambda fields: fields["task"].pop("hold_out"))
    with pytest.raises(ValueError, match="task.hold_out: saved 0, now 8"):
        go_on(folder, **changes)
    go_on(folder, **changes, task__hold_out=0)
    # A task that reads no file never held out any.
    begin(tmp_path / "other")
    edit(tmp_path / "other" / "config.json", lambda fields: fields["task"].pop("hold_out"))
    go_on(tmp_path / "other")


def test_a_config_with_unknown_fields_names_the_file_and_each(tmp_path):
    begin(tmp_path)

    def change(fields):
        fields["loss"]["vocab_chunks"] = 7
        fields["nobody"] = {"knows": "this"}
        fields["rollout"]["top_k"] = 20
        fields["model"]["remat"] = True

    edit(tmp_path / "config.json", change)
    with pytest.raises(ValueError) as caught:
        go_on(tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'config.json'}: written by another version")
    for line in (
        "loss.vocab_chunks = 7: no such field; did you mean loss.vocab_chunk?",
        "nobody.knows = 'this': no such field",
        "rollout.top_k = 20: no such field",
        "model.remat = True: must be",
    ):
        assert f"\n  {line}" in text
    assert "config.base()" not in text

    def correct(fields):
        del fields["loss"]["vocab_chunks"], fields["nobody"], fields["rollout"]["top_k"]
        fields["model"]["remat"] = "none"

    edit(tmp_path / "config.json", correct)
    go_on(tmp_path)


# --- one content of the data ---------------------------------------------------------------------------


def test_data_is_known_by_its_content(tmp_path):
    folder, path = tmp_path / "run", tmp_path / "data.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    changes = {"task__name": "math", "task__path": path}
    begin(folder, **changes)
    go_on(folder, **changes)
    moved = tmp_path / "moved.jsonl"
    path.rename(moved)
    go_on(folder, task__name="math", task__path=moved)
    moved.write_text('{"question": "1 + 1?", "answer": "3"}\n')
    with pytest.raises(ValueError) as caught:
        go_on(folder, task__name="math", task__path=moved)
    text = str(caught.value)
    assert f"the content has changed of\n  task.path = {str(moved)!r}\n" in text
    assert "Put the old files back" in text
    # And the way on that it names.
    assert f"delete {folder / 'data.json'}" in text or "delete data.json" in text
    (folder / "data.json").unlink()
    go_on(folder, task__name="math", task__path=moved)
    go_on(folder, task__name="math", task__path=moved)


def test_a_fingerprint_covers_every_file_and_their_borders(tmp_path):
    def print_of(*texts: str) -> str:
        for old in tmp_path.glob("*.jsonl"):
            old.unlink()
        for number, text in enumerate(texts):
            (tmp_path / f"part-{number}.jsonl").write_text(text)
        config = make_config(tmp_path, task__path=tmp_path / "part-*.jsonl")
        return run_folder.fingerprint(config, "task.path")

    prints = [
        print_of("a"),
        print_of("a", ""),
        print_of("a", "b"),
        print_of("b", "a"),
        print_of("ab"),
    ]
    assert len(set(prints)) == 5
    assert print_of("a", "b") == prints[2]
    assert run_folder.fingerprint(make_config(tmp_path), "task.path") == ""


@pytest.mark.parametrize("content", [b"", b"[]", b"{"])
def test_damaged_fingerprints_name_the_file(tmp_path, content):
    folder, path = tmp_path / "run", tmp_path / "data.jsonl"
    path.write_text("{}\n")
    begin(folder, task__name="math", task__path=path)
    (folder / "data.json").write_bytes(content)
    with pytest.raises(ValueError, match="data.json: damaged.*delete it"):
        go_on(folder, task__name="math", task__path=path)


def test_a_replaced_file_is_the_old_one_or_the_new_one(tmp_path):
    path = tmp_path / "state.json"
    files.replace_text(path, "old")
    inode = path.stat().st_ino
    path.with_name(".state.json.new").mkdir()  # stands in the way of the next
    with pytest.raises(OSError):
        files.replace_text(path, "new")
    assert (path.read_text(), path.stat().st_ino) == ("old", inode)
