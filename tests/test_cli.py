"""The command line as a user meets it: processes, exit status, what stands on which stream."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from jaxrl_reason import cli

FEW = (
    "c.rollout.num_prompts = 2; c.rollout.group_size = 2; c.rollout.chunk_rows = 4; "
    "c.task.length = 3; c.train.num_updates = 1; c.eval.num_problems = 2; c.eval.every = 0; "
    "c.optim.microbatch_rows = 4"
)


def run(*arguments: object, cwd: pathlib.Path) -> subprocess.CompletedProcess:
    """`python -m jaxrl_reason ...` in `cwd`."""
    command = [sys.executable, "-m", "jaxrl_reason", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


@pytest.fixture
def config_file(tmp_path: pathlib.Path) -> pathlib.Path:
    """The smallest run there is."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from jaxrl_reason import config\n"
        f"def get_config():\n    c = config.recipe('grpo')\n    {FEW}\n    return c\n"
    )
    return path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--config=c.py"], (["train", "--config=c.py"], [])),
        (["train", "--config", "c.py"], (["train", "--config", "c.py"], [])),
        (["--config.a.b=v", "x"], (["x"], ["a.b=v"])),
        (["--config.a.b", "v", "x"], (["x"], ["a.b=v"])),
        (["--config.a.b", "-1"], ([], ["a.b=-1"])),
        (["--config.a.b=", "x"], (["x"], ["a.b="])),
        (["--config.a.b=c=d"], ([], ["a.b=c=d"])),
        (["--config.a.b", "--resume"], (["--resume"], ["a.b"])),
        (["--config.a.b"], ([], ["a.b"])),
    ],
)
def test_assignments_are_split_off_in_both_forms(arguments: list[str], expected: tuple):
    assert cli.split_assignments(arguments) == expected


def test_help_is_fast_and_lists_the_commands(tmp_path: pathlib.Path):
    start = time.monotonic()
    done = run("--help", cwd=tmp_path)
    assert time.monotonic() - start < 2.0  # jax alone takes about one; about 0.1 measured
    assert done.returncode == 0
    for command in ("train", "sft", "evaluate", "report", "demo"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["train", "sft", "evaluate", "report", "demo"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: jaxrl-reason {command}")
    assert ("--config.loss.clip_high=0.28" in text) == (command in ("train", "sft", "evaluate"))


def test_heavy_libraries_wait_until_a_command_needs_them():
    code = (
        "import sys; from jaxrl_reason import cli; cli.main(['train', '--help']);"
        "assert not {'jax', 'ml_collections', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "--config"),
        (["train", "--config=c.py", "--resum"], "--resum"),
        (["report"], "RUN"),
        (["report", "runs/a", "--config.seed=1"], "--config.seed=1"),
        (["train", "--config=none.py"], "none.py: no such config file"),
    ],
)
def test_wrong_requests_exit_with_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_all_wrong_fields_are_named_at_once_without_a_stack(
    tmp_path: pathlib.Path, config_file: pathlib.Path
):
    done = run(
        *("train", f"--config={config_file}", "--config.loss.clip_hihg=0.28"),
        *("--config.rollout.num_prompts", "many", "--config.seed"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "did you mean loss.clip_high?" in done.stderr
    assert "rollout.num_prompts = 'many'" in done.stderr
    assert "'seed': write name=value" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.py"]


def test_the_stack_is_shown_on_request(config_file: pathlib.Path):
    with pytest.raises(cli._UsageError):
        cli.main(["train", "--traceback", f"--config={config_file}", "--config.seed=-1"])


def test_a_bug_keeps_its_stack(monkeypatch: pytest.MonkeyPatch):
    def broken(*_):
        raise KeyError("a bug")

    monkeypatch.setattr(cli, "_demo", broken)
    with pytest.raises(KeyError):
        cli.main(["demo"])


def test_train_refuse_resume_report_evaluate(tmp_path: pathlib.Path, config_file: pathlib.Path):
    """One run through its life, as a user types it."""
    folder = tmp_path / "run"
    common = (f"--config={config_file}", "--config.run_dir", folder)
    done = run("train", *common, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (folder / "config.json").is_file()
    assert sorted(os.listdir(folder / "checkpoints")) == ["0", "1"]

    refused = run("train", *common, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr and str(folder) in refused.stderr
    assert "Traceback" not in refused.stderr

    resumed = run("train", *common, "--config.train.num_updates=2", "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert sorted(os.listdir(folder / "checkpoints")) == ["1", "2"]

    reported = run("report", folder, cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert (folder / "report.html").is_file()

    measured = run("evaluate", folder, f"--config={config_file}", cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    results = json.loads(measured.stdout)
    assert 0.0 <= results["eval/arithmetic/avg@1"] <= 1.0


def test_resume_without_a_run_and_with_a_broken_checkpoint_stop(
    tmp_path: pathlib.Path, config_file: pathlib.Path
):
    folder = tmp_path / "run"
    common = ("train", f"--config={config_file}", f"--config.run_dir={folder}")
    nothing = run(*common, "--resume", cwd=tmp_path)
    assert nothing.returncode == 2
    assert "no run to resume" in nothing.stderr
    assert not folder.exists()

    assert run(*common, cwd=tmp_path).returncode == 0
    for path in (folder / "checkpoints" / "1" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    broken = run(*common, "--config.train.num_updates=2", "--resume", cwd=tmp_path)
    assert broken.returncode == 1
    assert f"{folder}/checkpoints/1: cannot be read" in broken.stderr
    assert "Traceback" not in broken.stderr
