"""Gated DeltaNet among attention layers: padding anywhere, caches, prompts shared by samples, configs."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.models import cache as kv
from jaxrl_reason.models import families, tensor_names, transformer
from jaxrl_reason.models.model_config import DeltaConfig

GOLDEN = pathlib.Path(__file__).parent / "golden" / "qwen3_next"
CONFIG = transformer.ModelConfig(
    vocab_size=20,
    num_layers=2,
    d_model=8,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    d_ff=8,
    attention_gate=True,
    centred_norms=True,
    rotary_fraction=0.5,
    remat="full",
    delta=DeltaConfig(
        period=2, num_key_heads=1, num_value_heads=2, key_dim=4, value_dim=3, conv_width=4
    ),
)
COLUMNS = 12


@pytest.fixture(scope="module")
def params():
    """Random numbers, the norms' too, so that each of them matters."""
    rng = np.random.default_rng(1)
    shapes = transformer.param_shapes(CONFIG)
    return jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype), shapes)


@jax.jit
def read(params, tokens, mask, row_weight):
    """(hidden states, gradient of a sum over the real tokens of weighted rows)."""

    def loss(params):
        hidden, _ = transformer.forward(CONFIG, params, tokens, mask)
        real = jnp.where(mask, row_weight[:, None], 0.0)
        return jnp.sum(real[..., None] * jnp.sin(hidden)), hidden

    gradient, hidden = jax.grad(loss, has_aux=True)(params)
    return hidden, gradient


def test_padding_anywhere_changes_no_value_and_no_gradient(params):
    """The same six tokens with padding on the left, on the right, and between them."""
    ids = np.random.default_rng(3).integers(0, 20, 6)
    mask = np.zeros((4, COLUMNS), bool)
    for row, places in enumerate([range(6, 12), range(6), [0, 3, 4, 8, 9, 11], range(6, 12)]):
        mask[row, list(places)] = True
    tokens = np.full(mask.shape, 7)
    tokens[3] = 13  # other padding
    tokens[mask] = np.tile(ids, 4)
    hidden = np.asarray(read(params, tokens, mask, np.ones(4, np.float32))[0])
    assert np.isfinite(hidden).all()
    rows = hidden[mask].reshape(4, 6, -1)
    np.testing.assert_array_equal(rows[3], rows[0])
    for row in rows[1:3]:
        np.testing.assert_allclose(row, rows[0], atol=1e-5)
    gradients = [read(params, tokens, mask, np.eye(4, dtype=np.float32)[i])[1] for i in range(3)]
    size = max(np.abs(x).max() for x in jax.tree.leaves(gradients[0]))
    assert np.abs(gradients[0]["layers"]["place_0"]["delta"]["conv"]).max() > 1e-3
    for other in gradients[1:]:
        for one, two in zip(jax.tree.leaves(other), jax.tree.leaves(gradients[0]), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5 * size)


def test_samples_go_on_from_the_state_of_their_prompt(params):
    """Prompts shorter than the convolution and longer; one sample of two ends before the others."""
    rng = np.random.default_rng(4)
    prompts, tails = rng.integers(0, 20, (2, 5)), rng.integers(0, 20, (4, 4))
    prompt_mask = np.asarray([[0, 0, 0, 0, 1], [1, 1, 1, 1, 1]], bool)
    tail_mask = np.ones((4, 4), bool)
    tail_mask[1, 2:] = False
    step = jax.jit(lambda *a: transformer.forward(CONFIG, params, *a))
    _, cache = step(prompts, prompt_mask, kv.empty(CONFIG, rows=2, columns=5))
    cache = kv.share(cache, num_samples=2, columns=4)
    assert [x.shape[0] for x in cache.layers[0]] == [4, 4]  # a state each
    assert cache.layers[1].prompt_k.shape[0] == 2  # keys of a prompt once
    parts = []
    for piece in (slice(0, 2), slice(2, 3), slice(3, 4)):
        before = jax.device_get(cache.layers[0])
        hidden, cache = step(tails[:, piece], tail_mask[:, piece], cache)
        parts.append(hidden)
    for old, new in zip(before, cache.layers[0], strict=True):
        np.testing.assert_array_equal(old[1], new[1])  # ended: its state stands still
        assert (old[0] != new[0]).any()
    tokens, mask = np.zeros((4, COLUMNS), int), np.zeros((4, COLUMNS), bool)
    tokens[:, :5], tokens[:, 5:9] = np.repeat(prompts, 2, axis=0), tails
    mask[:, :5], mask[:, 5:9] = np.repeat(prompt_mask, 2, axis=0), tail_mask
    expected = np.asarray(read(params, tokens, mask, np.ones(4, np.float32))[0])[:, 5:9]
    found = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(found[tail_mask], expected[tail_mask], atol=2e-5)


def test_decays_are_read_in_float32_whatever_the_compute_dtype(params):
    cast = transformer.compute_params(dataclasses.replace(CONFIG, dtype="bfloat16"), params)
    delta = cast["layers"]["place_0"]["delta"]
    kept = {name for name, x in delta.items() if name != "norm" and x.dtype == jnp.float32}
    assert kept == {"log_rate", "rate_bias"} and delta["norm"]["scale"].dtype == jnp.float32


def test_layers_apart_are_those_of_the_periods(params):
    config = dataclasses.replace(CONFIG, num_layers=6)
    stacked = {"place_0": np.asarray([0, 2, 4]), "place_1": np.asarray([1, 3, 5])}
    apart = transformer.unstack_layers(config, {"layers": stacked})["layers"]
    assert [int(transformer.layer_params(apart, i)) for i in range(6)] == list(range(6))
    name = tensor_names.tensor_name("layers.place_1.attention.wq", config)
    assert [name.format((i,)) for i in range(3)] == [
        f"model.layers.{i}.self_attn.q_proj.weight" for i in (1, 3, 5)
    ]


def fields(**changed) -> dict:
    found = json.loads((GOLDEN / "config.json").read_text()) | changed
    return {name: value for name, value in found.items() if value != "absent"}


def test_the_older_form_of_the_config_is_read():
    """As published: no list of kinds, the rotated share beside the base."""
    expected = families.model_config(fields())
    older = fields(
        layer_types="absent",
        full_attention_interval=2,
        rope_parameters="absent",
        rope_theta=100.0,
        rope_scaling=None,
        partial_rotary_factor=0.5,
    )
    assert families.model_config(older) == expected
    assert (expected.period, expected.rotary_dim) == (2, 4)
    left_out = families.model_config(fields(layer_types="absent", rope_parameters="absent"))
    assert (left_out.period, left_out.rotary_dim) == (4, 2)  # the defaults of transformers


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"layer_types": ["full_attention"] * 4}, "layer_types.*not supported for 4 layers"),
        ({"layer_types": ["linear_attention"] * 4}, "layer_types.*not supported for 4 layers"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "not supported for 4 layers"),
        ({"layer_types": "absent", "full_attention_interval": 3}, "not supported for 4 layers"),
        ({"layer_types": ["sliding_attention"]}, "'sliding_attention' is not supported"),
        ({"linear_conv_kernel_dim": "absent"}, "linear_conv_kernel_dim: missing"),
        ({"shared_expert_intermediate_size": "absent"}, "shared_expert_intermediate_size: missing"),
        ({"mlp_only_layers": [1]}, r"mlp_only_layers = \[1\]: not supported"),
        ({"decoder_sparse_step": 2}, "decoder_sparse_step = 2: not supported"),
        ({"linear_num_value_heads": 3}, "num_value_heads = 3: must be a multiple"),
        ({"rope_parameters": {"partial_rotary_factor": 0.4}}, "rotate an even number"),
        (
            {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"},
            "(?s)'linear_attention' is not supported.*partial_rotary_factor = 0.5.*linear_key_head_dim = 4: unknown",
        ),
    ],
)
def test_what_is_not_supported_is_an_error(changed, said):
    with pytest.raises(ValueError, match=said):
        families.model_config(fields(**changed))


def test_bad_sizes_come_in_one_error():
    with pytest.raises(ValueError, match="(?s)period = 1.*must be >= 2") as error:
        dataclasses.replace(CONFIG.delta, period=1, conv_width=0)
    assert "conv_width = 0" in str(error.value)
    with pytest.raises(ValueError, match="num_layers = 3: must be a multiple of delta.period = 2"):
        dataclasses.replace(CONFIG, num_layers=3)
    with pytest.raises(ValueError, match="no architecture of transformers"):
        families.config_fields(dataclasses.replace(CONFIG, centred_norms=False))
