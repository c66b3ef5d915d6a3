"""Cold start: its optimizers, and where their state lives."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import parts, sft

RATE = 1e-3


def make_run(tmp_path, optimizer: str) -> parts.Run:
    config = config_lib.override(
        config_lib.base(), [f"run_dir={tmp_path}", f"sft.optimizer={optimizer}"]
    )
    return parts.make_run(config)


def first_update(run: parts.Run, optimizer: optax.GradientTransformation):
    """Random gradients and the parameter changes that they cause."""
    keys = iter(jax.random.split(jax.random.key(1), 100))
    params = jax.device_get(run.policy.params)
    grads = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), params)
    changes, _ = jax.jit(optimizer.update)(grads, jax.jit(optimizer.init)(params), params)
    return grads, changes


@pytest.mark.slow
def test_muon_turns_the_matrices_of_the_layers_and_leaves_the_rest_to_adamw(tmp_path):
    run = make_run(tmp_path, "muon")
    grads, changes = first_update(run, sft.make_optimizer(run, optax.constant_schedule(RATE)))
    adamw = optax.adamw(RATE, b2=0.98, nesterov=True, weight_decay=0.0)
    _, plain = first_update(run, adamw)
    np.testing.assert_allclose(changes["embedding"], plain["embedding"], atol=1e-6)
    scale = changes["layers"]["attention"]["q_norm"]["scale"]
    np.testing.assert_allclose(scale, plain["layers"]["attention"]["q_norm"]["scale"], atol=1e-6)
    # wq maps 64 to 4 heads of 16, wo maps them back: as [64, 64] matrices their singular values
    # come out nearly equal, and the update has the size 0.2 * 2 * RATE that `consistent_rms` sets.
    for part, name, shape in [
        ("attention", "wq", (5, 64, 64)),
        ("attention", "wo", (5, 64, 64)),
        ("mlp", "down", (5, 128, 64)),
    ]:
        change = np.reshape(changes["layers"][part][name], shape)
        values = np.linalg.svd(change, compute_uv=False)
        spread = np.linalg.svd(np.reshape(grads["layers"][part][name], shape), compute_uv=False)
        assert values.max() / np.median(values) < 1.5 < spread.max() / np.median(spread)
        assert 0.7 < np.sqrt(np.mean(np.square(change))) / (0.2 * 2 * RATE) < 1.3


def test_muon_leaves_biases_and_routers_and_takes_experts_one_by_one():
    assert sft._matrix_axes(("layers", "heads", "head_dim")) is None
    assert sft._matrix_axes(("layers", "embed", "experts")) is None
    for axes, expected in (
        (("layers", "experts", "embed", "mlp"), ((2,), (3,))),
        (("layers", "experts", "mlp", "embed"), ((2,), (3,))),
        (("layers", "heads", "head_dim", "embed"), ((1, 2), (3,))),
    ):
        assert tuple(sft._matrix_axes(axes)) == expected


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_moments_live_beside_their_parameters_on_eight_devices(tmp_path, optimizer):
    run = make_run(tmp_path, optimizer)
    chain = optax.chain(
        optax.clip_by_global_norm(1.0), sft.make_optimizer(run, optax.constant_schedule(RATE))
    )
    state = parts.first_state(run, chain)
    places = {
        jax.tree_util.keystr(path): x.sharding
        for path, x in jax.tree_util.tree_leaves_with_path(state.params)
    }
    assert not places["['layers']['mlp']['up']"].is_fully_replicated
    seen = 0
    for path, x in jax.tree_util.tree_leaves_with_path(state.opt_state):
        name = next((n for n in places if jax.tree_util.keystr(path).endswith(n)), None)
        if name is None:
            assert x.sharding.is_fully_replicated
        else:
            assert x.sharding == places[name]
            seen += 1
    # AdamW holds two moments of every parameter; Muon holds one of each of the seven matrices.
    assert seen == (2 * len(places) if optimizer == "adamw" else 2 * len(places) - 7)
