"""The command line as a user meets it: processes, exit status, what stands on which stream."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from jaxrl_reason import cli

COMMANDS = ("train", "sft", "evaluate", "compare", "plan", "report", "demo")

FEW = (
    "c.rollout.num_prompts = 2; c.rollout.group_size = 2; c.rollout.chunk_rows = 4; "
    "c.task.length = 3; c.train.num_updates = 1; c.eval.num_problems = 2; c.eval.every = 0; "
    "c.optim.microbatch_rows = 4"
)


def run(*arguments: object, cwd: pathlib.Path, **environment: str) -> subprocess.CompletedProcess:
    """`python -m jaxrl_reason ...` in `cwd`."""
    command = [sys.executable, "-m", "jaxrl_reason", *map(str, arguments)]
    env = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=600)


def write_config(folder: pathlib.Path) -> pathlib.Path:
    """The smallest run there is."""
    path = folder / "mine.py"
    path.write_text(
        "from jaxrl_reason import config\n"
        f"def get_config():\n    c = config.recipe('grpo')\n    {FEW}\n    return c\n"
    )
    return path


@pytest.fixture
def config_file(tmp_path: pathlib.Path) -> pathlib.Path:
    """A config that nothing has run yet."""
    return write_config(tmp_path)


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
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: jaxrl-reason {command}")
    takes_fields = command in ("train", "sft", "evaluate", "compare", "plan")
    assert ("--config.loss.clip_high=0.28" in text) == takes_fields
    assert ("  optim.learning_rate = 0.0003" in text) == takes_fields


def test_help_shows_the_values_of_a_config(config_file, capsys: pytest.CaptureFixture[str]):
    for given in ([f"--config={config_file}"], ["--config", str(config_file)]):
        assert cli.main(["train", *given, "--config.optim.learning_rate=0.5", "-h"]) == 0
        text = capsys.readouterr().out
        assert re.search(r"\* optim\.learning_rate = 0\.5 +\(default: 0\.0003\) > 0, peak", text)
        assert "* rollout.num_prompts = 2 " in text and "  loss.kl_coef = 0.0 " in text
    assert cli.main(["train", f"--config={config_file}", "--config.seed=-1", "--help"]) == 2
    captured = capsys.readouterr()
    assert "seed = -1: must be >= 0" in captured.err and captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["train", "--lr=3"], "--lr=3: no such option; did you mean --config.optim.learning_rate?"),
        (["sft", "--lr", "3"], "did you mean --config.sft.learning_rate?"),
        (["train-prm", "--learning-rate=1"], "did you mean --config.prm.learning_rate?"),
        (["train", "--config=c.py", "--num_updates=3"], "--config.train.num_updates?"),
        (["compare", "a.py", "--out=x", "--kl=0.1"], "did you mean --config.loss.kl_coef?"),
        (["train", "--config=c.py", "--resum"], "did you mean --resume?"),
        (["report", "x", "--uot=y"], "did you mean --out?"),
        (["report", "x", "--lr=3"], "--lr=3: no such option\n"),
        (["train", "optim.lr=3"], "optim.lr=3: write --config.optim.lr=3"),
        (["train", "configs/mine.py"], "write --config=configs/mine.py"),
        (["train", "--seed=1", "--rank=4"], "--config.seed?; --rank=4: no such option; did you"),
    ],
)
def test_an_unknown_option_gets_its_commands_usage(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"usage: jaxrl-reason {arguments[0]} ")
    assert meant in captured.err and captured.out == ""


def test_options_that_exist_are_taken(config_file, capsys: pytest.CaptureFixture[str]):
    # A file of problems behind --task is no field, and neither is a config that stands behind its own option.
    options = ["evaluate", "x", "--task", "gsm8k=a.b/c.jsonl", "--config", str(config_file)]
    assert cli.main([*options, "--resume"]) == 2
    assert "--resume: nothing to go on with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["train", "--config=a b.py"],
            "go on with: jaxrl-reason train '--config=a b.py' --resume\n",
        ),
        (["train", "--resume", "--config=c.py"], "jaxrl-reason train --resume --config=c.py\n"),
        (["evaluate", "x", "--config=c.py", "--out=y"], "--out=y --resume\n"),
        (["evaluate", "x", "--config=c.py"], "interrupted\n"),
        (["report", "x"], "interrupted\n"),
    ],
)
def test_ctrl_c_says_how_to_go_on(
    arguments: list[str], said: str, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, f"_{arguments[0]}", stop)
    assert cli.main(arguments) == 130
    assert capsys.readouterr().err.endswith(said)


def test_a_full_disk_is_no_bug(monkeypatch, capsys: pytest.CaptureFixture[str]):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/model.safetensors")

    monkeypatch.setattr(cli, "_export", full)
    assert cli.main(["export", "a", "b"]) == 1
    assert "No space left on device: 'out/model.safetensors'" in capsys.readouterr().err


def test_output_that_nobody_reads_to_its_end_is_no_error():
    command = f"set -o pipefail; {sys.executable} -m jaxrl_reason train --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("usage: ") and done.stderr == ""


def test_warnings_are_one_line_without_their_source(capsys: pytest.CaptureFixture[str]):
    for text in ("one\n  two", "three"):
        cli._show_warning(text, UserWarning, "/elsewhere/library.py", 7)
    cli._show_warning("ours", UserWarning, cli.__file__, 7)
    cli._show_warning("ours again", UserWarning, cli.__file__, 7)
    assert capsys.readouterr().err == "warning: one two\nwarning: ours\nwarning: ours again\n"


def test_compiled_programs_are_kept_where_the_user_keeps_caches(
    tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    def kept(cache_dir: str, home: object) -> str:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", cache_dir)
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        cli._keep_compiled()
        return os.environ["JAX_COMPILATION_CACHE_DIR"]

    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "7")
    ours = tmp_path / "jaxrl_reason" / "xla"
    assert kept("", tmp_path) == str(ours) and ours.is_dir()
    assert os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] == "7"
    assert kept("mine", tmp_path / "other") == "mine" and not (tmp_path / "other").exists()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert kept("", "") == str(tmp_path / "home" / ".cache" / "jaxrl_reason" / "xla")
    assert capsys.readouterr().err == ""
    (tmp_path / "file").touch()
    assert kept("", tmp_path / "file") == ""
    assert re.fullmatch("compiled programs are not kept: .*\n", capsys.readouterr().err)


def test_heavy_libraries_wait_until_a_command_needs_them():
    code = (
        "import sys; from jaxrl_reason import cli; cli.main(['train', '--help']);"
        "assert not {'jax', 'transformers'} & sys.modules.keys()"
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
        (["compare", "--out=x"], "FILE"),
        (["compare", "none.py", "--out=x"], "none.py: no such config file"),
        (["report", "runs/a", "--config.seed=1"], "--config.seed=1"),
        (["train", "--config=none.py"], "none.py: no such config file"),
        (["plan", "--config=c.py", "--devices=many"], "invalid int value: 'many'"),
    ],
)
def test_wrong_requests_exit_with_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_a_plan_goes_to_standard_output(config_file, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["plan", f"--config={config_file}", "--device=v5p", "--devices=4"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "tiny: 0.00e9 parameters\non 4 x v5p, 95 GB each: data=1 fsdp=4 tensor=1"
    )
    assert cli.main(["plan", f"--config={config_file}", "--device=v9"]) == 2
    assert "device 'v9': must be one of" in capsys.readouterr().err


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


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory):
    """Run a command beside its config; compiled code is shared by the processes."""
    home = tmp_path_factory.mktemp("home")
    config_file = write_config(home)

    def call(command: str, *arguments: str) -> subprocess.CompletedProcess:
        given = () if command == "report" else (f"--config={config_file}",)
        return run(
            *(command, *arguments, *given),
            cwd=home,
            JAX_COMPILATION_CACHE_DIR="",
            XDG_CACHE_HOME=str(home / "cache"),
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        )

    call.run_dir = home / "run"
    return call


@pytest.fixture(scope="module")
def trained(call) -> subprocess.CompletedProcess:
    """The finished run."""
    done = call("train", "--config.run_dir", str(call.run_dir))
    assert done.returncode == 0, done.stderr
    return done


def test_there_must_be_something_to_resume(call):
    folder = call.run_dir.with_name("none")
    nothing = call("train", f"--config.run_dir={folder}", "--resume")
    assert nothing.returncode == 2
    assert "no run to resume" in nothing.stderr
    assert not folder.exists()


@pytest.mark.usefixtures("trained")
class TestOneRun:
    """A run through its life, as a user types it; each test goes on where the one before ended."""

    def test_it_left_its_files(self, call):
        assert (call.run_dir / "config.json").is_file()
        assert sorted(os.listdir(call.run_dir / "checkpoints")) == ["0", "1"]
        assert any((call.run_dir.parent / "cache" / "jaxrl_reason" / "xla").iterdir())

    def test_it_said_what_it_did_and_what_comes_next(self, call, trained):
        lines = trained.stdout.splitlines()
        assert lines[0] == "update 0/1  evaluating ..."
        (line,) = [line for line in lines if line.startswith("update 1/1  reward")]
        assert re.search(r"length [\d.]+  accuracy [\d.]+  .*s  \d+ tokens  [\d.k]+ tok/s", line)
        said = trained.stderr.splitlines()[-2:]
        assert said[0] == f"run folder: {call.run_dir}"
        assert said[1].startswith(
            f"next: jaxrl-reason report {call.run_dir}; jaxrl-reason evaluate"
        )

    def test_a_second_start_is_refused(self, call):
        refused = call("train", f"--config.run_dir={call.run_dir}")
        assert refused.returncode == 2
        assert "--resume" in refused.stderr and str(call.run_dir) in refused.stderr
        assert "Traceback" not in refused.stderr

    def test_it_can_be_reported(self, call):
        reported = call("report", str(call.run_dir))
        assert reported.returncode == 0, reported.stderr
        assert reported.stdout.strip() == str(call.run_dir / "report.html")
        assert (call.run_dir / "report.html").is_file()

    def test_its_policy_can_be_measured(self, call):
        measured = call("evaluate", str(call.run_dir))
        assert measured.returncode == 0, measured.stderr
        results = json.loads(measured.stdout)
        assert 0.0 <= results["eval/arithmetic/avg@1"] <= 1.0

    def test_it_can_go_on(self, call):
        more = ("train", f"--config.run_dir={call.run_dir}", "--config.train.num_updates=2")
        resumed = call(*more, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert sorted(os.listdir(call.run_dir / "checkpoints")) == ["1", "2"]

    def test_it_stops_at_a_broken_checkpoint(self, call):
        for path in (call.run_dir / "checkpoints" / "2" / "state").rglob("*"):
            if path.is_file():
                path.write_bytes(b"")
        more = ("train", f"--config.run_dir={call.run_dir}", "--config.train.num_updates=3")
        broken = call(*more, "--resume")
        assert broken.returncode == 1
        assert f"{call.run_dir}/checkpoints/2: cannot be read" in broken.stderr
        assert "Traceback" not in broken.stderr


INTERRUPTED = """
import atexit, sys, time
from jaxrl_reason import cli
def train(options, assignments):
    try:
        print("works", flush=True)
        time.sleep(60)
    finally:
        time.sleep(0.3)
cli._train = train
atexit.register(time.sleep, 1.0)  # as libraries do
sys.argv = ["jaxrl-reason", "train", "--config=mine.py"]
cli.run()
"""


@pytest.mark.usefixtures("heard_signals")
@pytest.mark.parametrize("times", [1, 2, 5])
def test_ctrl_c_is_one_line_however_often(times):
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=-1, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "works\n"
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "interrupted; go on with: jaxrl-reason train --config=mine.py --resume\n"
