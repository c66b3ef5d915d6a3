"""Each config of a method, shrunken, does one update: problems, samples, verdicts, rows, loss, new state."""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from jaxrl_reason import companions, parts, sharding, timing, train
from jaxrl_reason import config as config_lib
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import prm as prms

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
SHRUNKEN = {
    "model.source": "tiny",
    "task.length": 3,
    "task.modulus": 5,
    "rollout.num_prompts": 4,
    "rollout.group_size": 4,
    "rollout.chunk_rows": 16,
    "rollout.max_refills": 0,
    "locate.continuations": 4,
    "locate.retest": 4,
    "optim.microbatch_rows": 16,
}


@pytest.fixture(scope="module")
def policy() -> policies.Policy:
    return policies.load_policy("tiny")


@pytest.fixture(scope="module")
def engines() -> dict:
    """Engines by their shapes: they hold the compiled samplers, and no parameters."""
    return {}


def one_update(config, policy, engines):
    """(built rows, metrics of the loss, seconds by stage) of the first update."""
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    run = parts.make_run(config, policy=policy, mesh=mesh)
    run = dataclasses.replace(run, engine=engines.setdefault(run.engine.shapes, run.engine))
    clock = timing.Clock()
    second = companions.make(run)
    companion = second and second.bind(second.first_state(), clock)
    key, verify = jax.random.key(0), run.task.verify
    stages = parts.bind_stages(run, policy.params, key, verify, clock, companion)
    groups, _ = train.collect(run, stages, 0)
    built = run.method.build(groups, stages, np.random.default_rng(0))
    optimizer = parts.make_optimizer(run)
    state = parts.first_state(run, optimizer)._replace(companion=built.companion)
    batch = parts.place_batch(run, parts.to_batch(run, built.rows))
    state, results = parts.make_update(run, optimizer)(state, batch)
    assert int(state.num_updates) == 1
    if second:
        assert int(state.companion.num_updates) == 1
    return built, {name: float(value) for name, value in results.items()}, clock.metrics()


METHODS = (
    *("rloo", "reinforce_pp", "reinforce_pp_baseline"),
    *("vppo", "vppo_mc", "vppo_prm", "cliff", "grpo_process", "mixed", "rts"),
)
# They share no compiled program with the others, or are trained in other tests too.
SLOW_METHODS = (
    *("srl", "srl_then_rlvr", "prime", "ppo", "iop", "iop_arithmetic_hard", "iop_arithmetic_long"),
    *("gspo", "gspo_arithmetic_hard", "gspo_arithmetic_long", "grpo", "dr_grpo", "dapo"),
)
# Run elsewhere: a cold start, a reward model, and tasks that are not arithmetic.
ELSEWHERE = {
    "sft_arithmetic": "test_sft",
    "sft_arithmetic_hard": "test_sft",
    "sft_arithmetic_long": "test_sft",
    "prm_arithmetic": "test_prm_training",
    "gspo_countdown_bytes": "tasks/test_tasks_train",
    "gspo_knights_bytes": "tasks/test_tasks_train",
}


def file_of(name: str) -> pathlib.Path:
    return CONFIGS / f"{name if 'arithmetic' in name else name + '_arithmetic'}.py"


def test_no_config_is_left_out():
    run_here = {file_of(name).stem for name in (*METHODS, *SLOW_METHODS)}
    assert {f.stem for f in CONFIGS.glob("*.py")} == run_here | set(PAPERS) | set(ELSEWHERE)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_METHODS)
def test_one_update_of_a_slow_one(name: str, policy, engines, tmp_path):
    test_one_update(name, policy, engines, tmp_path)


@pytest.mark.parametrize("name", METHODS)
def test_one_update(name: str, policy, engines, tmp_path):
    changes = [f"{k}={v}" for k, v in SHRUNKEN.items()]
    if name == "vppo_prm":
        prm = prms.new_prm(policy, jax.random.key(0), step_end=";", chat=False)
        prms.save_prm(tmp_path / "prm", prm)
        changes += [f"locate.prm_path={tmp_path}/prm", "locate.prm_unevaluated=true"]
    for phase in config_lib.phases(config_lib.load(file_of(name), changes)):
        built, results, times = one_update(phase, policy, engines)
        assert np.isfinite(list(results.values())).all()
        if name.startswith("iop"):
            continue  # its rows are pairs; a random policy repairs little
        assert len(built.rows) == 16
        trained = sum(row.gate.sum() for row in built.rows)
        assert results["policy/tokens"] == trained
        # A random policy seldom ends in time, and dapo leaves out what was cut off.
        assert trained > 0 or name == "dapo"
    if name == "vppo_mc":
        assert built.metrics["process/locate_generations"] > 0
        assert times["time/locate"] > 0
    elif name == "vppo_prm":
        assert built.metrics["process/locate_tokens"] > 0
        # Untrained, it says 0.5 of every step, and 0.5 is not below the threshold.
        assert built.metrics["process/locate_none_frac"] == 1
    elif name in ("vppo", "cliff", "grpo_process"):
        assert built.metrics["process/locate_match_frac"] == 1
    elif name in ("prime", "ppo"):
        second = "prm" if name == "prime" else "critic"
        assert built.metrics[f"{second}/live_rows"] == 16
        # The values start at 0, which is what random weights earn: the critic need not move.
        assert name == "ppo" or built.metrics["prm/update_norm"] > 0
        assert times[f"time/{second}"] > 0
    elif name == "srl":
        assert 0 < built.metrics["reward/format_ok_frac"] <= 1


# The paper's model, data and sizes are put away; its method, losses and switches stay.
PAPERS = (
    *("iop_qwen3_32b", "iop_qwen3_next_80b", "gspo_qwen3_32b", "iop_qwen3_0p6b_gsm8k"),
    *("iop_qwen25_1p5b_math", "vppo_qwen3_4b", "vppo_qwen3_8b", "dapo_qwen25_32b", "srl_qwen25_7b"),
    *("srl_then_rlvr_qwen25_7b", "prime_qwen25_math_7b", "iop_gsm8k_bytes"),
)
PAPER_SHRUNKEN = SHRUNKEN | {
    "task.name": "arithmetic",
    "task.path": "",
    "task.think": False,  # a random policy over the task's own words cannot
    "mesh.tensor": 1,
    "rollout.prompt_length": 0,
    "rollout.max_new_tokens": 0,
    "locate.kind": "oracle",
    "iop.num_repairs": 2,
    "iop.reference_anchor": False,
    "iop.repair_rows": 16,
    "overlong.penalty_tokens": 0,
    "optim.minibatches": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_one_update_of_a_paper(name: str, policy, engines):
    changes = [f"{k}={v}" for k, v in PAPER_SHRUNKEN.items()]
    changes += ["task.step_end=separator"] if name.startswith("srl") else []
    for phase in config_lib.phases(config_lib.load(CONFIGS / f"{name}.py", changes)):
        built, results, _ = one_update(phase, policy, engines)
        assert np.isfinite(list(results.values())).all()
        # A random policy has few right answers: whole groups of them may be wrong, and dapo leaves out cut ones.
        assert results["policy/live_rows"] == sum(bool(row.gate.any()) for row in built.rows)
