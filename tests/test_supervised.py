"""Cold start and reward model: every update is written down, a signal saves, and a resumed run is the unbroken one."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import metrics, prm_training, sft, sharding, solutions, supervised, tasks
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.models import transformer

SMALL = {
    **{"task.length": 2, "task.modulus": 5, "rollout.num_prompts": 2, "rollout.group_size": 4},
    **{"rollout.chunk_rows": 64, "optim.microbatch_rows": 8, "eval.num_problems": 8},
    **{"train.checkpoint_every": 3, "sft.batch_rows": 8, "prm.batch_rows": 8},
    "train.preempt_grace_s": 0,  # the update that a signal meets is waited for, however slow the machine
}
COLD_START = {"sft.policy_updates": 5, "sft.repair_updates": 5, "sft.failures_every": 2}


@pytest.fixture(scope="module")
def policy() -> policies.Policy:
    """One layer."""
    tokenizer = tokenizers.arithmetic_tokenizer()
    config = dataclasses.replace(
        transformer.PRESETS["tiny"], num_layers=1, d_model=16, d_ff=16, vocab_size=len(tokenizer)
    )
    params = transformer.init_params(config, jax.random.key(0))
    return policies.Policy(config, params, tokenizer, lambda *_: None)


@pytest.fixture
def mesh() -> jax.sharding.Mesh:
    return sharding.make_mesh(config_lib.base().mesh, jax.devices()[:1])


def load(folder: pathlib.Path, **changes) -> config_lib.ml_collections.ConfigDict:
    values = SMALL | {"run_dir": str(folder)} | changes
    return config_lib.override(config_lib.base(), [f"{k}={v}" for k, v in values.items()])


def lines_of(folder: pathlib.Path) -> list[dict]:
    """Metrics without those that measure time; each update was written down once."""
    path = folder / "metrics.jsonl"
    lines = metrics.read_metrics(path)
    assert len(lines) == path.read_text().count("time/total")
    timed = ("time/", "perf/seconds", "perf/tokens_per_s")
    return [{k: v for k, v in line.items() if not k.startswith(timed)} for line in lines]


def ending_at(update: int, function):
    """The function, with SIGTERM to this process in the call of that number, counted from 0."""
    calls = []

    def called(*arguments, **settings):
        calls.append(arguments)
        if len(calls) == update + 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        return function(*arguments, **settings)

    return called


def same(a: pathlib.Path, b: pathlib.Path, name: str) -> bool:
    return (a / name).read_bytes() == (b / name).read_bytes()


def test_a_cold_start_from_a_file_goes_on_where_sigterm_ended_it(
    policy, mesh, tmp_path, monkeypatch
):
    rows = [{"prompt": f"solve {i} 3 :", "completion": f"= {i}"} for i in range(5)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    changes = {"sft.path": tmp_path / "rows.jsonl", "sft.policy_updates": 6}
    whole, cut = (load(tmp_path / name, **changes) for name in ("whole", "cut"))
    sft.sft(whole, policy=policy, mesh=mesh)
    lines = metrics.read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert [line["update"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(line["sft/policy_loss"]) for line in lines)
    assert all(line["perf/tokens_per_s"] > 0 < line["time/total"] for line in lines)
    # Of 8 rows: "= i" and EOS; BOS, the prompt's four tokens, and those.
    assert [line["perf/trained_tokens"] for line in lines] == [24 * n for n in range(1, 7)]
    rate = lines[0]["perf/tokens_per_s"] * lines[0]["time/total"]
    assert rate == pytest.approx(8 * (5 + 3), rel=0.2)

    with monkeypatch.context() as patch:
        patch.setattr(sft, "_pack", ending_at(1, sft._pack))
        folder = sft.sft(cut, policy=policy, mesh=mesh)
    assert not folder.exists() and (tmp_path / "cut" / "checkpoints" / "2").is_dir()
    with pytest.raises(FileExistsError, match="--resume"):
        sft.sft(cut, policy=policy, mesh=mesh)
    assert sft.sft(cut, policy=policy, mesh=mesh, resume=True).exists()
    assert same(tmp_path / "whole", tmp_path / "cut", "policy/params.safetensors")
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "cut")
    with pytest.raises(ValueError, match="sft.repair_fraction: saved"):
        other = load(tmp_path / "cut", **changes, **{"sft.repair_fraction": 0.1})
        sft.sft(other, policy=policy, mesh=mesh, resume=True)


# The call of `_pack`: in the first phase, at its end, in the second one, where it samples and where it does not.
@pytest.mark.slow
@pytest.mark.parametrize("update", [1, 4, 5, 6, 7, 9])
def test_a_cold_start_in_two_phases_goes_on_from_anywhere(
    update, policy, mesh, tmp_path, monkeypatch
):
    whole, cut = (load(tmp_path / name, **COLD_START) for name in ("whole", "cut"))
    sft.sft(whole, policy=policy, mesh=mesh)
    with monkeypatch.context() as patch:
        patch.setattr(sft, "_pack", ending_at(update, sft._pack))
        sft.sft(cut, policy=policy, mesh=mesh)
    assert (tmp_path / "cut" / "checkpoints" / str(update + 1)).is_dir()
    assert len(lines_of(tmp_path / "cut")) == update + 1
    sft.sft(cut, policy=policy, mesh=mesh, resume=True)
    assert same(tmp_path / "whole", tmp_path / "cut", "policy/params.safetensors")
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "cut")
    modes = [next(k for k in line if k.startswith("sft/")) for line in lines_of(tmp_path / "cut")]
    assert modes.count("sft/repair_loss") == 3  # half of updates 2 to 4, and of 5
    assert "eval/arithmetic/greedy" in lines_of(tmp_path / "cut")[-1]


def test_a_loss_that_is_no_number_ends_a_cold_start(policy, mesh, tmp_path, monkeypatch):
    config = load(tmp_path / "run", **COLD_START)
    row = sft.imitation_row

    def poisoned(*arguments):
        made = row(*arguments)
        return dataclasses.replace(made, advantages=made.advantages * np.nan)

    monkeypatch.setattr(sft, "imitation_row", poisoned)
    with pytest.raises(FloatingPointError, match="update 1: sft/policy_loss = nan; lower"):
        sft.sft(config, policy=policy, mesh=mesh)


@pytest.mark.slow
def test_a_reward_model_goes_on_where_sigterm_ended_it(policy, mesh, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    steps = rng.integers(2, size=(16, 3))
    records = [
        {"prompt": "solve 3 :", "completions": list(map(str, s)), "labels": [bool(d) for d in s]}
        for s in steps.tolist()
    ]
    (tmp_path / "steps.jsonl").write_text("\n".join(map(json.dumps, records)))
    exam = [{"id": "0", "problem": "solve 3 :", "steps": ["1", "0"], "label": 1}]
    (tmp_path / "exam.json").write_text(json.dumps(exam))
    changes = {"prm.labels": "trl", "prm.path": tmp_path / "steps.jsonl", "prm.updates": 7}
    changes |= {"prm.eval_path": tmp_path / "exam.json"}
    whole, cut = (load(tmp_path / name, **changes) for name in ("whole", "cut"))
    prm_training.train_prm(whole, policy=policy, mesh=mesh)
    with monkeypatch.context() as patch:
        patch.setattr(prm_training, "pack", ending_at(3, prm_training.pack))
        folder = prm_training.train_prm(cut, policy=policy, mesh=mesh)
    assert not folder.exists() and (tmp_path / "cut" / "checkpoints" / "4").is_dir()
    prm_training.train_prm(cut, policy=policy, mesh=mesh, resume=True)
    assert same(tmp_path / "whole", tmp_path / "cut", "prm/model.safetensors")
    lines = lines_of(tmp_path / "cut")
    assert lines_of(tmp_path / "whole")[:-1] == lines[:-1]
    assert [line["update"] for line in lines] == list(range(1, 8))
    assert all(np.isfinite(line["prm/loss"]) for line in lines)
    assert 0 <= lines[-1]["prm/f1"] <= 1


def test_solutions_are_labelled_once(policy, mesh, tmp_path, monkeypatch):
    config = load(
        tmp_path / "run", **{"prm.solutions": 8, "prm.updates": 2, "prm.eval_solutions": 4}
    )
    solved = [
        solutions.Solution(problem, None, False, ["1", "= 2"], [0, 1], 1)
        for problem in tasks.make_task(config.task).batch(0, 0, 4)
    ]
    monkeypatch.setattr(solutions, "sample", lambda *_, **__: solved)
    with monkeypatch.context() as patch:
        patch.setattr(prm_training, "pack", ending_at(0, prm_training.pack))
        prm_training.train_prm(config, policy=policy, mesh=mesh)
    kept = supervised.read_lines(tmp_path / "run" / "labels.jsonl")
    assert [r["labels"] for r in kept] == [[1, 0]] * 4
    run, seen = prm_training._fit, []
    monkeypatch.setattr(prm_training, "_examine", lambda *_: None)
    monkeypatch.setattr(solutions, "sample", lambda *_, **__: pytest.fail("labelled again"))
    monkeypatch.setattr(prm_training, "_fit", lambda *a: seen.append(run(*a)))
    prm_training.train_prm(config, policy=policy, mesh=mesh, resume=True)
    assert len(seen) == 1 and len(lines_of(tmp_path / "run")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sft", "train-prm"])
def test_kill_minus_nine_and_resume_equals_uninterrupted_bitwise(command, tmp_path):
    config = tmp_path / "mine.py"
    config.write_text("from jaxrl_reason import config\n\nget_config = config.base\n")
    values = SMALL | {"sft.policy_updates": 60, "sft.repair_updates": 60, "sft.failures_every": 9}
    values |= {"prm.solutions": 32, "prm.updates": 120, "prm.eval_solutions": 8}
    flags = [f"--config.{k}={v}" for k, v in values.items()]

    def run(name: str, *extra: str) -> subprocess.Popen:
        call = [sys.executable, "-m", "jaxrl_reason", command, f"--config={config}", *flags]
        return subprocess.Popen(
            [*call, f"--config.run_dir={tmp_path / name}", *extra],
            stdout=subprocess.DEVNULL,
            env=os.environ | {"XLA_FLAGS": ""},
        )

    assert run("whole").wait() == 0
    killed = run("killed")
    lines = tmp_path / "killed" / "metrics.jsonl"
    while not (lines.exists() and len(lines.read_text().splitlines()) >= 80):
        assert killed.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert run("killed", "--resume").wait() == 0
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "killed")
    name, file = ("policy", "params") if command == "sft" else ("prm", "model")
    assert same(tmp_path / "whole", tmp_path / "killed", f"{name}/{file}.safetensors")
