"""Attention against a plain NumPy softmax, over one block, several, and shared ones."""

from __future__ import annotations

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxrl_reason.ops import attention

ROWS, QUERIES, HEADS, KV_HEADS, WIDTH = 4, 3, 6, 2, 8


def reference(q, k, v, mask, scale):
    """Row by row and head by head in float64; keys and values are given per row."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    ratio = q.shape[2] // k.shape[2]
    for b, t, h in np.ndindex(*q.shape[:3]):
        allowed = np.flatnonzero(mask[b, t])
        if len(allowed):
            score = scale * k[b, allowed, h // ratio] @ q[b, t, h]
            weight = np.exp(score - score.max())
            out[b, t, h] = weight / weight.sum() @ v[b, allowed, h // ratio]
    return out


def draw(seed: int, rows: int, keys: int):
    """Keys, values and a mask with some forbidden keys."""
    rng = np.random.default_rng(seed)
    k, v = rng.normal(size=(2, rows, keys, KV_HEADS, WIDTH)).astype(np.float32)
    return k, v, rng.random((ROWS, QUERIES, keys)) < 0.6


@functools.partial(jax.jit, static_argnames="scale")
def attend(q, blocks, *, scale):
    """The function under test, compiled."""
    return attention.attend(q, blocks, scale=scale)


@pytest.fixture
def q():
    """Random queries."""
    shape = (ROWS, QUERIES, HEADS, WIDTH)
    return np.random.default_rng(9).normal(size=shape).astype(np.float32)


def test_one_block_equals_the_reference(q):
    k, v, mask = draw(0, ROWS, 5)
    mask[1, 2] = False
    out = attend(q, [(k, v, mask)], scale=0.3)
    np.testing.assert_allclose(out, reference(q, k, v, mask, 0.3), atol=1e-5)
    assert (np.asarray(out[1, 2]) == 0).all()  # no allowed key: 0, not NaN


def test_blocks_are_one_softmax_over_all_their_keys(q):
    k1, v1, mask1 = draw(0, ROWS, 5)
    k2, v2, mask2 = draw(1, ROWS, 2)
    k, v = np.concatenate([k1, k2], 1), np.concatenate([v1, v2], 1)
    mask = np.concatenate([mask1, mask2], 2)
    out = attend(q, [(k1, v1, mask1), (k2, v2, mask2)], scale=0.3)
    np.testing.assert_allclose(out, reference(q, k, v, mask, 0.3), atol=1e-5)


def test_a_shared_block_serves_consecutive_rows(q):
    k1, v1, mask1 = draw(0, ROWS // 2, 5)
    k2, v2, mask2 = draw(1, ROWS, 2)
    out = attend(q, [(k1, v1, mask1), (k2, v2, mask2)], scale=0.3)
    k = np.concatenate([np.repeat(k1, 2, axis=0), k2], 1)
    v = np.concatenate([np.repeat(v1, 2, axis=0), v2], 1)
    mask = np.concatenate([mask1, mask2], 2)
    np.testing.assert_allclose(out, reference(q, k, v, mask, 0.3), atol=1e-5)


def test_a_shared_block_is_never_repeated_in_memory():
    # One query per row, as in decoding: scores are small, and a copy of the block per row would be the largest array.
    q = jax.ShapeDtypeStruct((8, 1, HEADS, WIDTH), jnp.float32)
    block = jax.ShapeDtypeStruct((2, 50, KV_HEADS, WIDTH), jnp.float32)
    mask = jax.ShapeDtypeStruct((8, 1, 50), bool)
    compiled = attend.lower(q, [(block, block, mask)], scale=1.0).compile()
    sizes = [
        math.prod(int(n) for n in dims.split(","))
        for dims in re.findall(r"f32\[([0-9,]+)\]", compiled.as_text())
    ]
    scores, repeated = 8 * HEADS * 50, 8 * 50 * KV_HEADS * WIDTH
    assert scores in sizes
    assert max(sizes) < repeated


def test_large_scores_do_not_overflow(q):
    k, v, mask = draw(0, ROWS, 5)
    mask[:, :, 0] = True
    out = attend(1e3 * q, [(1e3 * k, v, mask)], scale=1.0)
    np.testing.assert_allclose(out, reference(1e3 * q, 1e3 * k, v, mask, 1.0), atol=1e-4)


def test_forbidden_keys_change_neither_value_nor_gradient(q):
    k, v, mask = draw(0, ROWS, 5)
    mask[2, 1] = False

    def loss(q, k, v):
        return jnp.sum(jnp.sin(attend(q, [(k, v, mask)], scale=0.3)))

    forbidden = ~mask.any(axis=1)[:, :, None, None]
    changed = np.where(forbidden, 1e4, k).astype(np.float32)
    assert forbidden.any()
    value, grads = jax.value_and_grad(loss, argnums=(0, 1, 2))(q, k, v)
    other, other_grads = jax.value_and_grad(loss, argnums=(0, 1, 2))(q, changed, v)
    assert value == other
    for grad, other_grad in zip(grads, other_grads, strict=True):
        assert np.isfinite(grad).all()
        np.testing.assert_array_equal(grad, other_grad)
    assert (np.asarray(grads[1])[np.broadcast_to(forbidden, k.shape)] == 0).all()


def test_gradient_equals_finite_differences(q):
    k, v, mask = draw(0, 2, 3)
    test_util.check_grads(
        lambda q, k, v: attend(q, [(k, v, mask)], scale=0.3),
        (q, k, v),
        order=1,
        modes=["rev"],
        atol=2e-2,
        rtol=2e-2,
    )


def test_bfloat16_is_summed_in_float32(q):
    k, v, mask = draw(0, ROWS, 300)
    half = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]
    out = attend(half[0], [(half[1], half[2], mask)], scale=0.3)
    exact = reference(*[np.asarray(x, np.float32) for x in half], mask, 0.3)
    assert out.dtype == jnp.bfloat16
    # Weights and result are rounded to 8 bits; sums in bfloat16 over 180 keys would be off by 0.1 and more.
    np.testing.assert_allclose(np.asarray(out, np.float32), exact, atol=0.01)


def test_sizes_that_do_not_divide_are_named(q):
    k, v, mask = draw(0, 3, 5)
    with pytest.raises(ValueError, match="4 rows over a block of 3"):
        attend(q, [(k, v, mask)], scale=1.0)
    k, v, mask = draw(0, ROWS, 5)
    with pytest.raises(ValueError, match="5 query heads over 2 key heads"):
        attend(q[:, :, :5], [(k, v, mask)], scale=1.0)
