"""Hub ids: fetched over HTTP from a server on this machine, taken from the cache without one, or said to be missing."""

from __future__ import annotations

import functools
import http.server
import json
import pathlib
import threading

import huggingface_hub
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from jaxrl_reason import config, hub, tasks
from jaxrl_reason.models import policy as policies
from jaxrl_reason.tasks import remote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.SimpleHTTPRequestHandler):
    """The three addresses of the hub that a download asks for, over files of a folder."""

    asked: list[str] = []

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, *, body: bool):
        folder, path = pathlib.Path(self.directory), self.path.partition("?")[0]
        path = path.replace("/api/datasets/me/data", "/api/models/me/model")
        path = path.replace("/datasets/me/data/", "/me/model/")
        if path == "/api/models/me/model/revision/main":
            data = json.dumps({"id": "me/model", "sha": COMMIT, "siblings": []}).encode()
        elif path == f"/api/models/me/model/tree/{COMMIT}":
            files = [p for p in folder.rglob("*") if p.is_file()]
            data = json.dumps(
                [
                    {
                        "type": "file",
                        "path": p.relative_to(folder).as_posix(),
                        "size": p.stat().st_size,
                        "oid": "0" * 40,
                    }
                    for p in files
                ]
            ).encode()
        elif path.startswith(f"/me/model/resolve/{COMMIT}/"):
            name = path.removeprefix(f"/me/model/resolve/{COMMIT}/")
            self.asked.append(name)
            data = (folder / name).read_bytes()
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Folder whose files the hub has; the cache is empty."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Hub, directory=str(folder))
    Hub.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        constants = huggingface_hub.constants
        here = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", here)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", here)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.chdir(tmp_path)
        yield folder
        server.shutdown()
        thread.join()


def test_a_checkpoint_is_fetched_once_and_without_code(served, monkeypatch):
    whole = policies.load_policy("tiny", seed=3)
    policies.export_policy(served, whole)
    for name in ("modeling.py", "pytorch_model.bin", "original/model.safetensors", "README.md"):
        (served / name).parent.mkdir(exist_ok=True)
        (served / name).write_text("import os")
    policy = policies.load_policy("me/model")
    np.testing.assert_array_equal(policy.params["embedding"], whole.params["embedding"])
    assert policy.tokenizer.get_vocab() == whole.tokenizer.get_vocab()
    here = {"config.json", "generation_config.json", "model.safetensors"}
    assert set(Hub.asked) == here | {"tokenizer.json", "tokenizer_config.json"}
    folder = hub.fetch("me/model@main")
    assert folder.name == COMMIT and {p.name for p in folder.iterdir()} == set(Hub.asked)
    # Without a network the cache serves, and what it lacks is said.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    Hub.asked.clear()
    assert hub.fetch("me/model") == folder == hub.fetch(f"me/model@{COMMIT}")
    with pytest.raises(FileNotFoundError, match="me/other.*cannot be fetched.*model.source to its"):
        policies.load_policy("me/other")
    assert not Hub.asked


def test_what_the_hub_does_not_have_is_said(served, monkeypatch):
    with pytest.raises(FileNotFoundError, match="neither a folder here nor a repository"):
        policies.load_policy("me/misspelt")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FileNotFoundError, match="cannot be fetched from the hub"):
        policies.load_policy("me/model")


def test_folders_are_no_ids(served):
    (served.parent / "runs").mkdir()
    for source in ("runs/misspelt", "tiny", "/tmp/x", "../x/y", "./a", "a/b/c", "a/", "x" * 3):
        assert not hub.is_hub_id(source)
    with pytest.raises(
        FileNotFoundError, match="nor a folder; the folder runs here hides runs/missp"
    ):
        policies.load_policy("runs/misspelt")


def test_a_data_set_is_read_by_its_id(served, monkeypatch):
    rows = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(6)]
    (served / "main").mkdir()
    parts = ("train-0.parquet", "train-1.parquet")
    for name, some in zip(parts, (rows[:3], rows[3:]), strict=True):
        parquet.write_table(pyarrow.Table.from_pylist(some), served / "main" / name)
    (served / "main/test.jsonl").write_text(json.dumps(rows[5]) + "\n")
    settings = config.base().task
    settings.name, settings.verify_workers = "gsm8k", 0
    settings.path, settings.eval_path = (
        "me/data:main/train-*.parquet",
        "me/data@main:main/test.jsonl",
    )
    with pytest.warns(UserWarning, match="gsm8k-6 is gsm8k-eval-1"):
        task = tasks.make_task(settings)
    assert set(Hub.asked) == {f"main/{name}" for name in ("test.jsonl", *parts)}
    assert [p.id for p in task.problems] == [f"gsm8k-{i}" for i in range(1, 6)] + ["gsm8k-eval-1"]
    # Without a network the cache serves, and prepared problems are the same.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    settings.eval_path, settings.data_dir = "", str(served.parent / "prepared")
    prepared = tasks.make_task(settings)
    assert [p.prompt for p in prepared.problems] == [row["question"] for row in rows]
    with pytest.raises(FileNotFoundError, match="me/data:main/x-.*owner/name:data/train"):
        remote.files("me/data:main/x-*.parquet")
    with pytest.raises(FileNotFoundError, match="me/none: .*--repo-type dataset.*task.path to its"):
        remote.files("me/none:train.jsonl")


def test_files_here_by_pattern(tmp_path):
    for name, line in (("b.jsonl", '{"question": 1}'), ("a.jsonl", '\n{"question": "q"}')):
        (tmp_path / name).write_text(line + "\n")
    assert [pathlib.Path(f).name for f in remote.files(tmp_path / "*.jsonl")] == [
        "a.jsonl",
        "b.jsonl",
    ]
    settings = config.base().task
    settings.name, settings.path = "math", str(tmp_path / "*.jsonl")
    with pytest.raises(ValueError, match=r"\*.jsonl: 2 of 2 .*\n  a.jsonl, line 2: no gold answer"):
        tasks.make_task(settings)
    for path, words in ((tmp_path, "a folder; name its files"), (tmp_path / "*.json", "no such")):
        with pytest.raises(FileNotFoundError, match=words):
            remote.files(path)
    (tmp_path / "odd").mkdir()
    assert not remote.is_hub_id(f"{tmp_path}/odd:x") and not remote.is_hub_id("tests/x:y")
