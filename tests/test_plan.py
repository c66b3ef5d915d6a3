"""The plan of a run: shapes of published models, pieces per device, and estimates against what XLA allocates."""

from __future__ import annotations

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import memory, parts, plan, sharding
from jaxrl_reason.models import families, published, transformer
from jaxrl_reason.ops import liveness
from jaxrl_reason.rollout import sampler

# Parameters in billions, of the model cards (arXiv 2412.15115 and 2505.09388 for Qwen2.5 and Qwen3).
CARDS = {
    "Qwen2.5-1.5B": 1.54,
    "Qwen2.5-7B": 7.61,
    "Qwen2.5-32B": 32.5,
    "Qwen3-0.6B": 0.6,
    "Qwen3-4B": 4.0,
    "Qwen3-8B": 8.2,
    "Qwen3-32B": 32.8,
    "Qwen3-Next-80B-A3B": 80.0,
}


def count(model) -> int:
    return sum(x.size for x in jax.tree.leaves(transformer.param_shapes(model)))


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_published_shapes_have_the_parameters_of_the_model_card(name: str):
    fields = published.PUBLISHED[name]
    if fields["architectures"][0] not in families.FAMILIES:
        pytest.skip(f"{fields['architectures'][0]} is no family yet")
    assert count(families.model_config(fields)) / 1e9 == pytest.approx(CARDS[name], rel=0.015)


def qwen(**changes):
    """A config that needs no file, for a model whose weights are not here."""
    config = config_lib.recipe("gspo")
    config.model.source = "Qwen/Qwen3-0.6B"
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.rollout.prompt_length, config.rollout.max_new_tokens = 256, 512
    config.optim.microbatch_rows, config.rollout.chunk_rows = 8, 32
    config.update_from_flattened_dict(changes)
    return config


def test_what_is_held_is_counted_exactly():
    held = plan.plan(qwen(), device="h100", num_devices=1).estimate.held
    num = count(families.model_config(published.PUBLISHED["Qwen3-0.6B"]))
    assert held["parameters"] == 4 * num
    assert held["optimizer"] == 2 * 4 * num + 8  # and two counters
    kl = plan.plan(qwen(**{"loss.kl_coef": 0.01}), device="h100", num_devices=1)
    assert kl.estimate.held["reference policy"] == 4 * num


def test_a_plan_says_what_fits_and_what_does():
    found = plan.plan(qwen(**{"model.source": "Qwen/Qwen3-4B"}), device="v5e", num_devices=1)
    assert not found.fits
    text = plan.table(found)
    assert "does NOT fit" in text and "4.02e9 parameters" in text and "1 x v5e, 16 GB" in text
    smallest = found.smallest
    assert smallest.peak <= plan.USABLE * 16e9 < found.estimate.peak
    sizes = smallest.mesh.values()
    assert f"{math.prod(sizes)} devices" in text
    assert "MEM_FRACTION" in plan.table(plan.plan(qwen(), device="h200", num_devices=1))


def test_the_model_may_be_a_config_json_alone(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(published.PUBLISHED["Qwen3-0.6B"]))
    model = config_lib.base().model
    for source in (tmp_path, path):
        model.source = str(source)
        assert plan.read_model(model, "cpu").d_model == 1024
    model.source = str(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="absent.*neither a preset.*Qwen3-32B"):
        plan.read_model(model, "cpu")


def test_what_cannot_be_planned_is_named():
    with pytest.raises(ValueError, match="device 'v9': must be one of v5e, v5p"):
        plan.plan(qwen(), device="v9", num_devices=1)
    with pytest.raises(ValueError, match="microbatch_rows = 8: must be a multiple of the 16"):
        plan.plan(qwen(), device="v5p", num_devices=16)
    with pytest.raises(ValueError, match="does not use 6 devices"):
        plan.plan(qwen(**{"mesh.fsdp": 4}), device="v5p", num_devices=6)
    with pytest.raises(ValueError, match="'splash': needs a TPU"):
        plan.plan(qwen(**{"model.attention": "splash"}), device="h100", num_devices=1)
    config = qwen(**{"task.name": "gsm8k", "task.path": "absent.jsonl"})
    assert plan.token_budgets(config).repair_prompt == 256 + 2 * 512
    config.rollout.prompt_length = 0
    with pytest.raises(FileNotFoundError, match="absent.jsonl"):
        plan.plan(config, device="h100", num_devices=1)


# --- against the compiler -----------------------------------------------------------------------


def small(remat: str, sizes: tuple[int, int, int], tmp_path) -> parts.Run:
    """A run of the tiny model, long enough rows for activations to matter."""
    config = config_lib.recipe("gspo")
    config.run_dir = str(tmp_path)
    config.model.remat = remat
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = sizes
    config.rollout.num_prompts, config.rollout.group_size, config.rollout.chunk_rows = 4, 4, 16
    config.rollout.max_new_tokens = 96
    config.optim.microbatch_rows = 8
    mesh = sharding.make_mesh(config.mesh, jax.devices()[: math.prod(sizes)])
    return parts.make_run(config, mesh=mesh)


def measured(lowered) -> int:
    """Bytes per device that XLA allocates for a program: arguments, results and all between."""
    m = lowered.compile().memory_analysis()
    return (
        m.argument_size_in_bytes
        + m.output_size_in_bytes
        - m.alias_size_in_bytes
        + m.temp_size_in_bytes
    )


def lower_sampler(run: parts.Run):
    """The real sampler: 4 samples of 4 prompts."""
    model, shapes = run.policy.config, run.engine.shapes
    settings = sampler._Settings(4, shapes.completion, (1,), 0, False, top_k=0, top_p=1.0)
    generate = functools.partial(sampler._generate, config=model, settings=settings, mesh=run.mesh)
    rows, whole = sharding.batch_sharding(run.mesh), sharding.replicated(run.mesh)
    compiled = jax.jit(
        lambda *arguments: generate(*arguments)[0],
        in_shardings=(sampler._param_shardings(model, run.mesh), rows, rows, rows, whole, whole),
        out_shardings=rows,
    )
    prompts = np.zeros((4, shapes.prompt), np.int32)
    mask, budget = prompts == 0, np.full(4, shapes.completion, np.int32)
    return compiled.lower(run.policy.params, prompts, mask, budget, 1.0, jax.random.key(0))


@pytest.fixture
def optimised():
    """What runs allocate is what the compiler makes of them, and the suite turns most of it off."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    "remat, sizes",
    [("none", (1, 1, 1)), ("full", (1, 1, 1)), ("dots", (1, 4, 2)), ("full", (2, 4, 1))],
)
def test_the_update_needs_what_the_plan_says(remat, sizes, tmp_path):
    run = small(remat, sizes, tmp_path)
    found = memory.estimate(run.config, run.policy.config, run.engine.shapes, sizes)
    planned = sum(found.held.values()) + sum(found.phases["update"].values())
    optimizer = parts.make_optimizer(run)
    state = parts.state_shapes(optimizer, run.policy.params)
    rows = parts.train_rows(run.config, run.method)
    batch = memory.batch_shapes(rows, run.engine.shapes.prompt + run.engine.shapes.completion)
    actual = measured(parts.make_update(run, optimizer).jitted.lower(state, batch, None, True))
    print(remat, sizes, planned, actual, planned / actual)
    assert planned == pytest.approx(actual, rel=memory.TOLERANCE)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 4, 1)])
def test_the_sampler_needs_what_the_plan_says(sizes, tmp_path):
    run = small("none", sizes, tmp_path)
    found = memory.estimate(run.config, run.policy.config, run.engine.shapes, sizes)
    phase = found.phases["sampling, policy"]
    planned = found.held["parameters"] + sum(phase.values())
    actual = measured(lower_sampler(run))
    print(sizes, planned, phase, actual, planned / actual)
    assert planned == pytest.approx(actual, rel=memory.TOLERANCE)


def test_a_loop_holds_its_state_and_one_body():
    x = jax.ShapeDtypeStruct((100, 100), jnp.float32)  # 40,000 bytes

    def loop(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: jnp.sin(y @ y), x)

    # The argument, the state, and the product that becomes the next state.
    assert liveness.peak_bytes(loop, x) == pytest.approx(120_000, abs=100)

    def chain(x):
        return jax.lax.scan(lambda y, _: (jnp.sin(y), y), x, None, length=7)[1]

    assert liveness.peak_bytes(chain, x) == pytest.approx(10 * 40_000, abs=41_000)  # 7 stacked


def test_activations_that_dominate_get_a_hint():
    found = plan.plan(qwen(**{"model.remat": "none"}), device="h100", num_devices=1)
    one = found.estimate
    assert one.phases["update"]["activations"] > 0.5 * one.peak > found.remat.peak
    (line,) = [x for x in plan.table(found).splitlines() if "model.remat=full" in x]
    assert f"{found.remat.peak / 1e9:.2f} GB" in line
    # Set already, or nothing to gain: no word of it.
    full = plan.plan(qwen(), device="h100", num_devices=1)
    assert full.remat is None and "remat" not in plan.table(full)
    assert full.estimate.peak == found.remat.peak
    small = plan.plan(
        qwen(**{"model.remat": "none", "rollout.prompt_length": 8, "rollout.max_new_tokens": 8}),
        device="h100",
        num_devices=1,
    )
    assert small.remat is None and "remat" not in plan.table(small)
