"""The forward pass: causality, padding, caches, and against equations written out in NumPy."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.models import cache as kv
from jaxrl_reason.models import transformer

CONFIG = transformer.ModelConfig(
    vocab_size=20, num_layers=2, d_model=16, num_heads=4, num_kv_heads=2, head_dim=4, d_ff=24
)


@pytest.fixture(scope="module")
def params():
    """Random weights; norms are moved away from 1, so that each of them matters."""
    rng = np.random.default_rng(1)

    def move(path, x):
        moved = 0.3 * rng.normal(size=x.shape) if path[-1].key == "scale" else 0.0
        return np.asarray(x + moved, np.float32)

    tree = jax.device_get(transformer.init_params(CONFIG, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(move, tree)


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, tokens, token_mask, cache=None):
    """(logits, hidden, cache), compiled as one: by itself, each small operation would be compiled alone."""
    hidden, cache = transformer.forward(config, params, tokens, token_mask, cache)
    return transformer.logits(params, hidden), hidden, cache


def forward(params, tokens, mask, config=CONFIG) -> np.ndarray:
    return np.asarray(run(config, params, tokens, mask)[0])


def draw(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, CONFIG.vocab_size, (rows, columns))


def numpy_logits(params, tokens: np.ndarray, config) -> np.ndarray:
    """One row without padding, one layer, head and token at a time, float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    eps, half = config.rms_eps, config.head_dim // 2

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale

    def rotate(vector, position):
        angle = position * config.rope_theta ** (-np.arange(half) * 2 / config.head_dim)
        a, b = vector[:half], vector[half:]
        return np.concatenate(
            [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)]
        )

    x = params["embedding"][tokens]
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda w, i=i: w[i], params["layers"])
        attn, mlp = layer["attention"], layer["mlp"]
        y = norm(x, layer["attention_norm"]["scale"])
        q, k, v = (np.einsum("td,dhe->the", y, attn[name]) for name in ("wq", "wk", "wv"))
        if config.qk_norm:
            q, k = norm(q, attn["q_norm"]["scale"]), norm(k, attn["k_norm"]["scale"])
        out = np.zeros_like(q)
        for t, h in np.ndindex(*q.shape[:2]):
            group = h // (config.num_heads // config.num_kv_heads)
            query = rotate(q[t, h], t)
            score = np.asarray([query @ rotate(k[s, group], s) for s in range(t + 1)])
            weight = np.exp(score * config.head_dim**-0.5)
            out[t, h] = weight / weight.sum() @ v[: t + 1, group]
        x = x + np.einsum("the,hed->td", out, attn["wo"])
        y = norm(x, layer["mlp_norm"]["scale"])
        gate = y @ mlp["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (y @ mlp["up"])) @ mlp["down"]
    head = params["embedding"] if config.tied else params["head"]
    return norm(x, params["final_norm"]["scale"]) @ head.T


def test_equals_the_equations(params):
    tokens = draw(1, 7)
    expected = numpy_logits(params, tokens[0], CONFIG)
    np.testing.assert_allclose(forward(params, tokens, tokens >= 0)[0], expected, atol=1e-4)


def test_equals_the_equations_without_qk_norm_and_with_a_head_of_its_own():
    config = dataclasses.replace(
        CONFIG, qk_norm=False, tied=False, num_kv_heads=1, rope_theta=100.0
    )
    params = transformer.init_params(config, jax.random.key(2))
    assert "q_norm" not in params["layers"]["attention"]
    assert params["head"].shape == params["embedding"].shape
    tokens = draw(1, 7)
    expected = numpy_logits(params, tokens[0], config)
    np.testing.assert_allclose(forward(params, tokens, tokens >= 0, config)[0], expected, atol=1e-4)


def test_positions_count_real_tokens():
    mask = jnp.asarray([[0, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0]], bool)
    positions = transformer.positions_from_mask(mask)
    np.testing.assert_array_equal(positions, [[0, 0, 0, 1], [0, 1, 2, 2], [0, 0, 0, 0]])


def test_padding_changes_no_logit_of_a_real_token(params):
    tokens = draw(3, 6)
    plain = forward(params, tokens, tokens >= 0)
    left, right = np.full((3, 5), 7), np.full((3, 2), 9)
    padded = np.concatenate([left, tokens, right], axis=1)
    mask = np.zeros(padded.shape, bool)
    mask[:, 5:11] = True
    # Not bitwise: sums over 13 keys, 7 of them 0, are grouped in another way than sums over 6.
    np.testing.assert_allclose(forward(params, padded, mask)[:, 5:11], plain, atol=5e-6, rtol=0)
    # What stands on the padding does not matter at all.
    other = np.where(mask, padded, 13)
    np.testing.assert_array_equal(
        forward(params, other, mask)[:, 5:11], forward(params, padded, mask)[:, 5:11]
    )


def test_padding_gets_and_gives_no_gradient(params):
    tokens, mask = jnp.asarray(draw(2, 6)), np.ones((2, 6), bool)
    mask[:, :3] = False
    mask[1] = False  # a row of padding alone

    def loss(params, tokens):
        hidden, _ = transformer.forward(CONFIG, params, tokens, jnp.asarray(mask))
        return jnp.sum(jnp.where(mask[..., None], jnp.sin(hidden), 0.0))

    gradient = jax.jit(jax.grad(loss))
    grads = gradient(params, tokens)
    other = gradient(params, jnp.where(mask, tokens, 11))
    for one, two in zip(jax.tree.leaves(grads), jax.tree.leaves(other), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, two)


def test_no_token_looks_to_its_right(params):
    tokens = draw(1, 8)
    changed = tokens.copy()
    changed[0, 5] = (changed[0, 5] + 1) % CONFIG.vocab_size
    one, two = (forward(params, x, x >= 0)[0] for x in (tokens, changed))
    np.testing.assert_array_equal(one[:5], two[:5])
    assert (one[5:] != two[5:]).any(axis=1).all()


@pytest.mark.parametrize("widths", [(1,) * 6, (4, 2)])
def test_reading_in_pieces_equals_reading_at_once(params, widths):
    tokens, mask = draw(2, 6), np.ones((2, 6), bool)
    mask[1, :2] = False
    expected = forward(params, tokens, mask)
    cache, start, parts = kv.empty(CONFIG, rows=2, columns=9), 0, []
    for width in widths:
        piece = slice(start, start + width)
        logits, _, cache = run(CONFIG, params, tokens[:, piece], mask[:, piece], cache)
        parts.append(logits)
        start += width
    found = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(found[mask], expected[mask], atol=1e-5)
    assert int(cache.length) == 6
    np.testing.assert_array_equal(cache.own_mask[:, :6], mask)


def test_rows_that_share_a_prompt_equal_rows_with_a_copy_each(params):
    prompts, mask = draw(2, 4), np.asarray([[0, 1, 1, 1], [1, 1, 1, 1]], bool)
    tails = draw(6, 3)[::-1]
    _, _, cache = run(CONFIG, params, prompts, mask, kv.empty(CONFIG, rows=2, columns=4))
    shared = kv.share(cache, num_samples=3, columns=5)
    assert shared.layers[0].prompt_k.shape[0] == 2  # one entry per prompt
    logits, _, shared = run(CONFIG, params, tails, np.ones((6, 3), bool), shared)
    whole = np.concatenate([np.repeat(prompts, 3, axis=0), tails], axis=1)
    whole_mask = np.concatenate([np.repeat(mask, 3, axis=0), np.ones((6, 3), bool)], axis=1)
    expected = forward(params, whole, whole_mask)[:, 4:]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    with pytest.raises(ValueError, match="prompt part of 4 columns"):
        kv.share(shared, num_samples=2, columns=1)


def test_layers_apart_are_the_same_layers(params):
    apart = transformer.unstack_layers(CONFIG, transformer.compute_params(CONFIG, params))
    tokens = draw(2, 3)
    one, _, _ = run(CONFIG, apart, tokens, tokens >= 0, kv.empty(CONFIG, rows=2, columns=3))
    two, _, _ = run(CONFIG, params, tokens, tokens >= 0, kv.empty(CONFIG, rows=2, columns=3))
    np.testing.assert_array_equal(one, two)


def test_a_scan_is_the_same_as_layers_unrolled(params, monkeypatch):
    tokens = draw(2, 4)
    unrolled = forward(params, tokens, tokens >= 0)
    monkeypatch.setattr(transformer, "_MOST_UNROLLED", 0)
    config = dataclasses.replace(CONFIG, rms_eps=1.0001e-6)  # compiled anew
    assert config != CONFIG
    np.testing.assert_allclose(forward(params, tokens, tokens >= 0, config), unrolled, atol=1e-5)


def test_remat_does_not_change_the_gradient(params):
    tokens = jnp.asarray(draw(2, 5))

    def gradient(config):
        def loss(params):
            return jnp.sum(transformer.forward(config, params, tokens, tokens >= 0)[0] ** 2)

        return jax.jit(jax.grad(loss))(params)

    plain, *others = (
        gradient(dataclasses.replace(CONFIG, remat=r)) for r in ("none", "full", "dots")
    )
    for other in others:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), plain, other
        )


@pytest.mark.parametrize("kernel", ["dense", "xla"])
def test_a_window_and_a_kernel_are_the_same_with_and_without_a_cache(params, kernel):
    config = dataclasses.replace(CONFIG, window=3, attention=kernel)
    tokens = draw(2, 7)
    mask = np.ones(tokens.shape, bool)
    mask[1, :2] = False
    whole = forward(params, tokens, mask, dataclasses.replace(CONFIG, window=3))
    assert np.abs(whole - forward(params, tokens, mask))[mask].max() > 0.01  # the window shows
    # Prompts of four tokens by the kernel, each the prompt of one row; then two steps, one of them of two tokens.
    *_, cache = run(config, params, tokens[:, :4], mask[:, :4], kv.empty(config, rows=2, columns=4))
    cache = kv.share(cache, num_samples=1, columns=3)
    *_, cache = run(config, params, tokens[:, 4:6], mask[:, 4:6], cache)
    logits, *_ = run(config, params, tokens[:, 6:], mask[:, 6:], cache)
    np.testing.assert_allclose(logits[:, 0], whole[:, 6], atol=1e-4)
    np.testing.assert_allclose(forward(params, tokens, mask, config)[mask], whole[mask], atol=1e-4)


def test_bfloat16_computes_in_half_and_keeps_float32_parameters(params):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    tokens = draw(2, 6)
    logits, hidden, cache = run(config, params, tokens, tokens >= 0)
    assert (logits.dtype, hidden.dtype, cache) == (jnp.float32, jnp.bfloat16, None)
    # 8 bits of mantissa, two layers: a few percent of logits of about 1.
    np.testing.assert_allclose(logits, forward(params, tokens, tokens >= 0), atol=0.15)
    cast = transformer.compute_params(config, params)
    assert cast["layers"]["mlp"]["up"].dtype == jnp.bfloat16
    assert cast["layers"]["mlp_norm"]["scale"].dtype == jnp.float32


def test_sizes_of_the_presets():
    def count(name: str) -> int:
        return sum(
            x.size for x in jax.tree.leaves(transformer.param_shapes(transformer.PRESETS[name]))
        )

    # tiny: 128 * 64 + 64 + 5 * (2 * 64 * 64 + 2 * 64 * 32 + 2 * 16 + 2 * 64 + 3 * 64 * 128) = 193 376
    assert count("tiny") == 193_376
    assert 4.1e6 < count("small") < 4.3e6


def test_every_parameter_axis_has_a_name(params):
    axes = transformer.logical_axes(CONFIG)
    is_names = lambda x: isinstance(x, tuple)  # noqa: E731
    ranks = jax.tree.map(len, axes, is_leaf=is_names)
    assert ranks == jax.tree.map(lambda x: x.ndim, params)
    known = {"vocab", "embed", "heads", "kv_heads", "head_dim", "mlp", "layers"}
    assert {name for names in jax.tree.leaves(axes) for name in [names]} == known
    assert axes["layers"]["attention"]["wq"] == ("layers", "embed", "heads", "head_dim")


def test_first_logits_are_of_unit_size():
    params = transformer.init_params(CONFIG, jax.random.key(0))
    tokens = draw(2, 6)
    assert 0.5 < forward(params, tokens, tokens >= 0).std() < 2.0


def test_bad_sizes_come_in_one_error():
    with pytest.raises(ValueError) as error:
        dataclasses.replace(CONFIG, num_kv_heads=3, head_dim=5, dtype="float16")
    for text in ("num_kv_heads = 3", "head_dim = 5", "dtype = 'float16'"):
        assert text in str(error.value)
    with pytest.raises(ValueError, match="num_layers = 0: must be >= 1"):
        dataclasses.replace(CONFIG, num_layers=0)
