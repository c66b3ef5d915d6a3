"""Kernels of whole rows against plain NumPy: values, gradients, padding on any side, windows, shared heads, devices."""

from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason import sharding
from jaxrl_reason.ops import attention
from tests.ops.test_attention import reference

COLUMNS, HEADS, KV_HEADS, WIDTH, SCALE = 12, 4, 2, 8, 0.3
# Padding left, right, on both sides, in between; no padding; nothing but padding.
REAL = ((3, 12), (0, 7), (2, 9), (0, 12), (0, 0), (0, 12), (4, 5), (0, 1))
MASK = np.array([[a <= c < b for c in range(COLUMNS)] for a, b in REAL])
MASK[5, [1, 5, 6]] = False
KERNELS = (
    "dense",
    "xla",
    pytest.param("splash", marks=pytest.mark.slow),  # interpreted; split by rows and heads below
    pytest.param("cudnn", marks=pytest.mark.gpu),
)


@pytest.fixture(scope="module")
def inputs():
    """(queries, keys, values), padding filled with large numbers."""
    rng = np.random.default_rng(0)
    q, k, v = (
        rng.normal(size=(len(REAL), COLUMNS, n, WIDTH)).astype(np.float32)
        for n in (HEADS, KV_HEADS, KV_HEADS)
    )
    return tuple(np.where(MASK[..., None, None], x, 1e3).astype(np.float32) for x in (q, k, v))


def expected_mask(window: int) -> np.ndarray:
    """Query t sees key s: written out, token by token."""
    seen = np.zeros((len(REAL), COLUMNS, COLUMNS), bool)
    for b, t in np.ndindex(len(REAL), COLUMNS):
        before = [s for s in range(t + 1) if MASK[b, s]]
        seen[b, t, before[-window:] if window else before] = MASK[b, t]
    return seen


def rows(kernel: str, window: int, mesh=None):
    """The function under test, compiled, with the gradient of a loss that weighs every output differently."""

    def value(q, k, v, dtype):
        q, k, v = (x.astype(dtype) for x in (q, k, v))
        out = attention.attend_rows(
            q, k, v, jnp.asarray(MASK), scale=SCALE, window=window, kernel=kernel, mesh=mesh
        )
        return out.astype(jnp.float32)

    @functools.partial(jax.jit, static_argnames="dtype")
    def both(q, k, v, dtype):
        out, pull = jax.vjp(functools.partial(value, dtype=dtype), q, k, v)
        return out, pull(jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))

    return both


@pytest.fixture(scope="module")
def exact(inputs):
    """{window: (values, gradients)} of the dense kernel; its values are compared with NumPy below."""
    return {w: rows("dense", w)(*inputs, dtype="float32") for w in (0, 3)}


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("kernel", KERNELS)
def test_values_and_gradients(kernel, window, inputs, exact):
    dtype, close = ("bfloat16", 0.03) if kernel == "cudnn" else ("float32", 2e-5)
    out, gradients = rows(kernel, window)(*inputs, dtype=dtype)
    wanted = reference(*inputs, expected_mask(window), SCALE)
    np.testing.assert_allclose(out, wanted, atol=close)
    assert (np.asarray(out)[~MASK] == 0).all()
    for gradient, other in zip(gradients, exact[window][1], strict=True):
        np.testing.assert_allclose(gradient, other, atol=10 * close)
        assert (np.asarray(gradient)[~MASK] == 0).all()


def test_a_pallas_kernel_is_split_by_rows_and_heads(inputs, exact):
    sizes = types.SimpleNamespace(data=1, fsdp=4, tensor=2)
    mesh = sharding.make_mesh(sizes, jax.devices()[:8])
    out, gradients = rows("splash", 3, mesh)(*inputs, dtype="float32")
    np.testing.assert_allclose(out, exact[3][0], atol=2e-5)
    for gradient, other in zip(gradients, exact[3][1], strict=True):
        np.testing.assert_allclose(gradient, other, atol=2e-4)


@pytest.mark.tpu
def test_splash_on_its_own_device(inputs, exact):
    out, gradients = rows("splash", 3)(*inputs, dtype="bfloat16")
    np.testing.assert_allclose(out, exact[3][0], atol=0.03)
    for gradient, other in zip(gradients, exact[3][1], strict=True):
        np.testing.assert_allclose(gradient, other, atol=0.3)


def test_what_a_platform_cannot_is_named():
    pick = attention.pick_kernel
    assert pick("auto", platform="tpu", dtype="float32") == "splash"
    assert pick("auto", platform="gpu", dtype="float32") == "xla"
    assert pick("xla", platform="tpu", dtype="bfloat16") == "xla"
    with pytest.raises(
        ValueError, match="'splash': needs a TPU, but the devices are of kind 'cpu'"
    ):
        pick("splash", platform="cpu", dtype="bfloat16")
    with pytest.raises(ValueError, match="'cudnn': needs a GPU.*choose auto, dense or xla"):
        pick("cudnn", platform="tpu", dtype="bfloat16")
    with pytest.raises(ValueError, match="cuDNN has no float32; set model.dtype to bfloat16"):
        pick("cudnn", platform="gpu", dtype="float32")
    with pytest.raises(ValueError, match="'flash': must be one of auto, dense"):
        pick("flash", platform="gpu", dtype="float32")
