"""Experts against a loop over tokens in NumPy; routing by hand."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.models import moe
from jaxrl_reason.models.model_config import ExpertsConfig, ModelConfig

CONFIG = ModelConfig(
    vocab_size=8,
    num_layers=1,
    d_model=6,
    num_heads=1,
    num_kv_heads=1,
    head_dim=4,
    d_ff=4,
    experts=ExpertsConfig(num_experts=5, top_k=2, d_ff=3, normalise=True),
)


def run(config, x, seed=0):
    module = moe.Experts(config)
    params = jax.tree.map(
        lambda box: box.value,
        module.init(jax.random.key(seed), x)["params"],
        is_leaf=lambda b: hasattr(b, "value"),
    )
    return params, module.apply({"params": params}, x)


@pytest.mark.parametrize("normalise", [True, False])
def test_equals_a_loop_over_tokens(normalise):
    experts = dataclasses.replace(CONFIG.experts, normalise=normalise)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6)), jnp.float32)
    params, found = run(dataclasses.replace(CONFIG, experts=experts), x)
    params = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    expected = np.zeros(x.shape)
    for b, t in np.ndindex(2, 4):
        token = np.asarray(x[b, t], np.float64)
        score = np.exp(token @ params["router"])
        score /= score.sum()
        best = np.argsort(-score)[:2]
        weight = score[best] / (score[best].sum() if normalise else 1.0)
        for e, w in zip(best, weight, strict=True):
            gate = token @ params["gate"][e]
            inner = gate / (1 + np.exp(-gate)) * (token @ params["up"][e])
            expected[b, t] += w * (inner @ params["down"][e])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_token_does_not_depend_on_its_batch():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 9, 6)), jnp.float32)
    _, whole = run(CONFIG, x)
    _, alone = run(CONFIG, x[:, 3:4])
    np.testing.assert_allclose(whole[:, 3:4], alone, atol=1e-6)


def test_every_visited_expert_and_the_router_learn():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(4, 8, 6)), jnp.float32)
    params, _ = run(CONFIG, x)
    loss = lambda p: jnp.sum(jnp.sin(moe.Experts(CONFIG).apply({"params": p}, x)))  # noqa: E731
    grads = jax.jit(jax.grad(loss))(params)
    for name, grad in grads.items():
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, name


def test_bad_sizes_are_said():
    with pytest.raises(ValueError, match=r"top_k = 6 must be in \[1, num_experts = 5\]"):
        dataclasses.replace(CONFIG.experts, top_k=6)
