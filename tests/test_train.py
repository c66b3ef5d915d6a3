"""The loop: it learns, resumes bitwise, survives kill -9 and SIGTERM, stops on NaN, compiles once."""

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
from jaxrl_reason import metrics, parts, sft, sharding, timing, train
from jaxrl_reason.methods import outcome

SMALL = {
    "task.length": 3,
    "task.modulus": 5,
    "rollout.num_prompts": 8,
    "rollout.group_size": 4,
    "optim.microbatch_rows": 16,
    "eval.num_problems": 32,
    "eval.every": 0,
    "train.num_updates": 4,
    "train.checkpoint_every": 2,
    "train.log_rollouts_every": 1,
    "train.tensorboard": False,
    "iop.repair_rows": 16,
    "sft.batch_rows": 64,
}


def one_device() -> jax.sharding.Mesh:
    """The suite has eight virtual devices; where they are not the point, one is faster."""
    return sharding.make_mesh(config_lib.base().mesh, jax.devices()[:1])


def small(method: str, folder: pathlib.Path, **changes):
    config = config_lib.recipe(method)
    values = (
        SMALL | {"run_dir": str(folder)} | {k.replace("__", "."): v for k, v in changes.items()}
    )
    return config_lib.override(config, [f"{k}={v}" for k, v in values.items()])


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> pathlib.Path:
    """Policy that solves part of the small problems."""
    folder = tmp_path_factory.mktemp("start")
    changes = dict(sft__policy_updates=160, sft__repair_start=1.0, sft__repair_updates=0)
    return sft.sft(small("iop", folder / "sft", **changes), writers=[], mesh=one_device())


@pytest.fixture(scope="module")
def repairing_start(tmp_path_factory) -> pathlib.Path:
    """Policy that solves and repairs part of the small problems."""
    folder = tmp_path_factory.mktemp("repairing_start")
    config = small("iop", folder / "sft", sft__policy_updates=160, sft__repair_updates=40)
    return sft.sft(config, writers=[], mesh=one_device())


def comparable(folder: pathlib.Path) -> list[dict]:
    """Metrics without those that measure time."""
    lines = metrics.read_metrics(folder / "metrics.jsonl")
    timed = ("time/", "perf/seconds", "perf/tokens_per_s", "perf/compiles")
    return [{k: v for k, v in line.items() if not k.startswith(timed)} for line in lines]


def assert_same_state(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a.opt_state), jax.tree.leaves(b.opt_state), strict=True):
        np.testing.assert_array_equal(x, y)
    assert (a.companion is None) == (b.companion is None)
    if a.companion is not None:
        assert_same_state(a.companion, b.companion)


# ppo: with the critic's parameters and moments in the state.
@pytest.mark.parametrize(
    ("method", "cold_start"),
    [
        ("gspo", "start"),
        pytest.param("iop", "repairing_start", marks=pytest.mark.slow),
        pytest.param("dapo", "start", marks=pytest.mark.slow),
        pytest.param("ppo", "start", marks=pytest.mark.slow),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted_bitwise(method, cold_start, request, tmp_path):
    source = {"model__source": request.getfixturevalue(cold_start)}
    whole, state = train.train(small(method, tmp_path / "whole", **source), mesh=one_device())
    part = small(method, tmp_path / "part", train__num_updates=2, **source)
    folder, _ = train.train(part, mesh=one_device())
    again = small(method, tmp_path / "part", **source)
    folder, resumed = train.train(again, resume=True, mesh=one_device())
    assert_same_state(state, resumed)
    ours, theirs = comparable(whole), comparable(folder)
    # The part's own last update was evaluated; that line says more, and nothing else.
    assert [line["update"] for line in ours] == [line["update"] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert {k: other[k] for k in mine} == mine


@pytest.mark.slow
def test_kill_minus_nine_and_resume_equals_uninterrupted_bitwise(repairing_start, tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(
        "from jaxrl_reason import config\n\ndef get_config():\n    return config.recipe('iop')\n"
    )
    values = SMALL | {"model.source": repairing_start, "train.num_updates": 20}
    flags = [f"--config.{k}={v}" for k, v in values.items()]

    def run(name: str, *extra: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "jaxrl_reason", "train", f"--config={config}"]
        command += [*flags, f"--config.run_dir={tmp_path / name}", *extra]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env=os.environ | {"XLA_FLAGS": ""}
        )

    assert run("whole").wait() == 0
    killed = run("killed")
    lines = tmp_path / "killed" / "metrics.jsonl"
    while not (lines.exists() and len(lines.read_text().splitlines()) >= 6):
        assert killed.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert run("killed", "--resume").wait() == 0
    assert comparable(tmp_path / "whole") == comparable(tmp_path / "killed")
    files = [tmp_path / name / "policy" / "params.safetensors" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


class Interrupting(outcome.Outcome):
    """GSPO that gets SIGTERM while it builds its second batch."""

    calls = 0

    def build(self, groups, stages, rng):
        Interrupting.calls += 1
        if Interrupting.calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().build(groups, stages, rng)


def test_sigterm_saves_the_update_in_progress_and_returns(start, tmp_path):
    # However slow the machine is, the update is waited for.
    changes = {"train__checkpoint_every": 100, "train__preempt_grace_s": 0}
    config = small("gspo", tmp_path / "run", model__source=start, **changes)
    Interrupting.calls = 0
    before = signal.getsignal(signal.SIGTERM)
    folder, state = train.train(
        config, method=Interrupting(config, completion_tokens=8), mesh=one_device()
    )
    assert int(state.num_updates) == 2
    assert (folder / "checkpoints" / "2").is_dir()
    assert signal.getsignal(signal.SIGTERM) is before


class Poisoned(outcome.Outcome):
    """GSPO whose advantages are not numbers."""

    def build(self, groups, stages, rng):
        built = super().build(groups, stages, rng)
        rows = [dataclasses.replace(r, advantages=r.advantages * np.nan) for r in built.rows]
        return dataclasses.replace(built, rows=rows)


def test_nan_stops_with_update_and_last_good_checkpoint(start, tmp_path):
    config = small("gspo", tmp_path / "run", model__source=start)
    with pytest.raises(FloatingPointError, match=r"update 1: not finite.*checkpoints/0"):
        train.train(config, method=Poisoned(config, completion_tokens=8), mesh=one_device())
    report = json.loads((tmp_path / "run" / "nonfinite_update_1.json").read_text())
    assert report["policy/nonfinite"] == "1.0"


def test_a_run_folder_is_not_overwritten_nor_resumed_with_other_settings(start, tmp_path):
    config = small("gspo", tmp_path / "run", model__source=start, train__num_updates=1)
    train.train(config, mesh=one_device())
    with pytest.raises(FileExistsError, match="--resume"):
        train.train(config, mesh=one_device())
    other = small("gspo", tmp_path / "run", model__source=start, loss__clip_low=1e-3)
    with pytest.raises(ValueError, match=r"loss.clip_low: saved 0.0003, now 0.001"):
        train.train(other, resume=True, mesh=one_device())
    with pytest.raises(FileNotFoundError, match="without --resume"):
        train.train(small("gspo", tmp_path / "none"), resume=True, mesh=one_device())


def test_updates_compile_once_and_sampler_agrees_with_trainer(start, tmp_path):
    config = small("gspo", tmp_path / "run", model__source=start)
    run = parts.make_run(config, mesh=one_device())
    update = parts.make_update(run, parts.make_optimizer(run))
    folder, _ = train.train(config, update_fn=update, mesh=one_device())
    assert update.num_compiles == 1
    lines = metrics.read_metrics(folder / "metrics.jsonl")
    # Update 0 is the evaluation before training; from the first to the last but one nothing compiles anew.
    assert lines[2]["perf/compiles"] == lines[3]["perf/compiles"]
    for line in lines[1:]:
        assert line["mismatch/kl"] < 1e-8
        assert line["mismatch/prob_error"] < 1 + 1e-5
        # On policy: ratio 1, nothing clipped, no divergence.
        assert line["policy/ratio_mean"] == pytest.approx(1, abs=1e-5)
        assert line["policy/kl"] < 1e-8
        assert line["policy/clip_frac_low"] == line["policy/clip_frac_high"] == 0


@pytest.mark.parametrize("max_refills", [0, 1])
def test_the_share_of_groups_that_were_kept_is_said_where_others_are_drawn(
    max_refills, start, tmp_path
):
    changes = {"model__source": start, "rollout__max_refills": max_refills}
    run = parts.make_run(small("gspo", tmp_path, **changes), mesh=one_device())
    stages = parts.bind_stages(
        run, run.policy.params, jax.random.key(0), run.task.verify, timing.Clock()
    )
    groups, sampled = train.collect(run, stages, 0)
    told = sampled.get("reward/kept_group_frac")
    if max_refills:
        useful = sum(run.method.gives_signal(g) for g in groups)
        assert useful == len(groups) and 0 < told < 1
    else:
        assert told is None and sampled["reward/frac_zero_std"] > 0


def test_two_updates_draw_different_samples(start, tmp_path):
    config = small("gspo", tmp_path / "run", model__source=start)
    run = parts.make_run(config, mesh=one_device())
    prompts = [run.task.policy_prompt(p) for p in run.task.batch(0, 0, 8)]
    tokens = [run.policy.tokenizer.encode(text) for text in prompts]
    root = jax.random.key(config.seed)

    def draw(update: int) -> list:
        key = jax.random.fold_in(root, update)
        groups = run.engine.sample(run.policy.params, key, tokens, stage="policy-0", num_samples=4)
        return [c.tokens for group in groups for c in group]

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


@pytest.mark.slow
def test_reward_rises_past_a_threshold_and_stays_after_resume(repairing_start, tmp_path):
    method = "gspo"
    changes = {
        "model__source": repairing_start,
        "optim__learning_rate": 5e-4,
        "rollout__num_prompts": 32,
        "rollout__group_size": 8,
        "eval__num_problems": 256,
    }
    first = small(method, tmp_path / "run", train__num_updates=40, **changes)
    folder, _ = train.train(first, mesh=one_device())
    lines = metrics.read_metrics(folder / "metrics.jsonl")
    before, after = lines[0]["eval/arithmetic/avg@1"], lines[-1]["eval/arithmetic/avg@1"]
    assert before < 0.7 < after
    folder, _ = train.train(
        small(method, tmp_path / "run", train__num_updates=44, **changes), resume=True
    )
    lines = metrics.read_metrics(folder / "metrics.jsonl")
    assert [line["update"] for line in lines] == list(range(45))
    assert np.mean([line["reward/mean"] for line in lines[-3:]]) > 0.7
    assert max(line["mismatch/kl"] for line in lines[-3:]) < 0.01


def test_generated_tokens_count_policy_repairs_and_audits(start, tmp_path):
    config = small("iop", tmp_path / "run", model__source=start, train__num_updates=1)
    run = parts.make_run(config, mesh=one_device())
    folder, _ = train.train(config, mesh=one_device())
    line = metrics.read_metrics(folder / "metrics.jsonl")[-1]
    policy_tokens = line["response_length/mean"] * 32
    assert line["perf/generated_tokens"] > policy_tokens
    assert run.engine.shapes.completion == 8


def test_token_budget_ends_the_run(start, tmp_path):
    config = small("gspo", tmp_path / "run", model__source=start, train__max_generated_tokens=300)
    folder, _ = train.train(config, mesh=one_device())
    lines = metrics.read_metrics(folder / "metrics.jsonl")
    # 32 completions of at most 8 tokens: two updates reach 300.
    assert lines[-1]["update"] == 2
    assert "eval/arithmetic/greedy" in lines[-1]
