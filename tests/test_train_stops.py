"""A run that is told to stop: what it keeps, how it ends, and that the one that goes on is the unbroken one."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable

import jax
import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import metrics, sharding, train
from jaxrl_reason.types import Verdict

pytestmark = pytest.mark.usefixtures("heard_signals")

CHANGES = {
    "task.length": 2,
    "task.modulus": 5,
    "rollout.num_prompts": 4,
    "rollout.group_size": 4,
    "optim.microbatch_rows": 16,
    "optim.learning_rate": 0.01,
    "loss.entropy_coef": 0.1,  # completions of random weights are cut off, and earn nothing
    "eval.num_problems": 8,
    "eval.every": 2,
    "train.num_updates": 3,
    "train.checkpoint_every": 100,
    "train.tensorboard": False,
}


def make_config(method: str, folder: pathlib.Path, **changes):
    values = CHANGES | {"run_dir": folder} | {k.replace("__", "."): v for k, v in changes.items()}
    return config_lib.override(config_lib.recipe(method), [f"{k}={v}" for k, v in values.items()])


def judged(problems, texts):
    """Rewards that random weights can earn."""
    return [Verdict(float(zlib.crc32(t.encode()) % 2), t, "correct") for t in texts]


def run(config, verify: Callable = judged, **options):
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    return train.train(config, mesh=mesh, verify=verify, **options)


def lines_of(folder: pathlib.Path) -> list[dict]:
    """Metrics without those that measure time."""
    timed = ("time/", "perf/seconds", "perf/tokens_per_s", "perf/compiles")
    lines = metrics.read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not k.startswith(timed)} for line in lines]


def assert_same_run(one, two) -> None:
    """Bitwise, figures and arrays."""
    (folder, state), (other, again) = one, two
    assert lines_of(folder) == lines_of(other)
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(x, y)
    for x, y in zip(
        jax.tree.leaves(state.opt_state), jax.tree.leaves(again.opt_state), strict=True
    ):
        np.testing.assert_array_equal(x, y)


# A run in a process of its own that waits for ever in the nth sampling, update or evaluation.
STUCK = """
import pathlib, sys, time
from tests.test_train_stops import judged, make_config, run
import jax; jax.config.update("jax_num_cpu_devices", 8)  # rounding depends on it
from jaxrl_reason import evaluate, parts
method, folder, place, at, grace = sys.argv[1:]
calls = {"sample": 0, "update": 0, "evaluate": 0}
def waiting(kind, function):
    def wrapped(*arguments, **options):
        result = function(*arguments, **options)
        calls[kind] += 1
        if kind == place and calls[kind] == int(at):
            pathlib.Path(folder, "waits").touch()
            time.sleep(10_000)
        return result
    return wrapped
make_update = parts.make_update
parts.make_update = lambda *a, **k: waiting("update", make_update(*a, **k))
evaluate.in_loop = waiting("evaluate", evaluate.in_loop)
run(make_config(method, folder, train__preempt_grace_s=grace), waiting("sample", judged))
print("left the loop")
"""


def stopped(method: str, folder: pathlib.Path, place: str, at: int, *numbers: int, grace: float):
    """(exit status, output, errors) of a run that was sent signals while it waited."""
    command = [sys.executable, "-c", STUCK, method, folder, place, at, grace]
    process = subprocess.Popen(
        [str(word) for word in command],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=pathlib.Path(__file__).parents[1],
    )
    while not (folder / "waits").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    for number in numbers:
        process.send_signal(number)
        time.sleep(1.2)
    out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The unbroken run."""
    folder, state = run(make_config("gspo", tmp_path_factory.mktemp("whole") / "run"))
    assert [line.get("policy/skipped") for line in lines_of(folder)] == [None, 0, 0, 0]
    return folder, state


@pytest.mark.parametrize(
    ("place", "at", "kept"),
    [
        ("sample", 2, 1),
        # Evaluated after updates 0, 2 and 3.
        pytest.param("evaluate", 1, 0, marks=pytest.mark.slow),
        pytest.param("evaluate", 2, 2, marks=pytest.mark.slow),
    ],
)
def test_what_ran_is_dropped_and_the_resumed_run_is_the_unbroken_one(
    whole, tmp_path, place, at, kept
):
    folder = tmp_path / "run"
    status, out, errors = stopped("gspo", folder, place, at, signal.SIGTERM, grace=0.2)
    assert status == 0, errors
    assert "left the loop" in out
    assert "SIGTERM: saving after this update, at most 0.2 s\n" in errors
    assert f"SIGTERM: dropped what ran; --resume goes on from update {kept}\n" in errors
    assert max(int(p.name) for p in (folder / "checkpoints").iterdir()) == kept
    assert not (folder / "policy").exists()
    assert_same_run(whole, run(make_config("gspo", folder), resume=True))


@pytest.mark.slow
def test_a_half_done_update_falls_back_to_what_is_on_the_disk(whole, tmp_path):
    folder = tmp_path / "run"
    status, out, errors = stopped("gspo", folder, "update", 2, signal.SIGTERM, grace=0.2)
    assert status == 0, errors
    assert "left the loop" not in out
    assert "SIGTERM: dropped what ran; --resume goes on from update 0\n" in errors
    assert_same_run(whole, run(make_config("gspo", folder), resume=True))


@pytest.mark.slow
def test_a_second_signal_drops_what_the_first_waits_for(tmp_path):
    folder = tmp_path / "run"
    numbers = (signal.SIGHUP, signal.SIGTERM)
    status, out, errors = stopped("gspo", folder, "sample", 2, *numbers, grace=0)
    assert status == 0, errors
    assert "SIGHUP: dropped what ran; --resume goes on from update 1\n" in errors
    assert (folder / "checkpoints" / "1").is_dir()
