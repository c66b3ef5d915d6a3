import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.ops import logprob

B, T, D, V = 2, 5, 4, 7


def inputs(dtype=jnp.float32, shape=(B, T), vocab=V, scale=1.0):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(scale * rng.standard_normal((*shape, D)), dtype)
    head = jnp.asarray(rng.standard_normal((vocab, D)), dtype)
    return hidden, head, jnp.asarray(rng.integers(0, vocab, shape))


def plain(hidden, head, targets, temperature=1.0):
    """The same two quantities through a whole log-softmax."""
    logp = jax.nn.log_softmax(hidden @ head.T / temperature, axis=-1)
    chosen = jnp.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]
    return chosen, -jnp.sum(jnp.exp(logp) * logp, axis=-1)


def weighted(function, **kwargs):
    """A scalar that mixes both outputs with different weights per position; position (0, 1) is masked."""

    def scalar(hidden, head, targets):
        weights = jnp.linspace(-1.0, 2.0, targets.size).reshape(targets.shape)
        mask = jnp.arange(targets.size).reshape(targets.shape) != 1
        logprobs, entropy = function(hidden, head, targets, **kwargs)
        return jnp.sum(jnp.where(mask, weights * logprobs + (0.5 - weights) * entropy, 0))

    return scalar


@functools.cache
def values_and_grads(function, **kwargs):
    """Jitted (hidden, head, targets) -> (logprobs, entropy), d scalar / d (hidden, head)."""
    grad = jax.grad(weighted(function, **kwargs), argnums=(0, 1))
    return jax.jit(lambda *x: (function(*x, **kwargs), grad(*x)))


@pytest.mark.parametrize(
    ("chunk", "temperature"), [*((c, 1.0) for c in range(1, V + 1)), (V + 7, 1.0), (3, 0.7)]
)
def test_every_chunk_size_equals_log_softmax(chunk, temperature):
    arrays = inputs()
    got = values_and_grads(logprob.token_logprobs, temperature=temperature, vocab_chunk=chunk)(
        *arrays
    )
    want = values_and_grads(plain, temperature=temperature)(*arrays)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[1][0][0, 1], np.zeros(D))


@pytest.mark.parametrize("chunk", [1, 3, V])
def test_float64_agrees_to_1e_8(chunk):
    with jax.enable_x64(True):
        arrays = inputs(jnp.float64)
        got = values_and_grads(logprob.token_logprobs, temperature=1.3, vocab_chunk=chunk)(*arrays)
        want = values_and_grads(plain, temperature=1.3)(*arrays)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-8)


def test_hand_values():
    # One hidden number 1, head column (log 1, log 2, log 5): probabilities 1/8, 2/8, 5/8.
    hidden = jnp.ones((1, 3, 1))
    head = jnp.log(jnp.array([[1.0], [2.0], [5.0]]))
    logprobs, entropy = logprob.token_logprobs(hidden, head, jnp.array([[0, 1, 2]]), vocab_chunk=2)
    np.testing.assert_allclose(logprobs, np.log([[0.125, 0.25, 0.625]]), rtol=1e-6)
    # H = 1/8 log 8 + 2/8 log 4 + 5/8 log 8/5 = 0.259930 + 0.346574 + 0.293752
    np.testing.assert_allclose(entropy, np.full((1, 3), 0.900256), rtol=1e-5)
    # Temperature 1/2 squares the weights: 1, 4, 25 of 30.
    logprobs, _ = logprob.token_logprobs(hidden, head, jnp.array([[0, 1, 2]]), temperature=0.5)
    np.testing.assert_allclose(logprobs, np.log([[1 / 30, 4 / 30, 25 / 30]]), rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_empty_input(shape):
    hidden, head, targets = inputs(shape=shape)
    values, grads = values_and_grads(logprob.token_logprobs, vocab_chunk=3)(hidden, head, targets)
    assert values[0].shape == values[1].shape == shape
    assert grads[0].shape == hidden.shape
    np.testing.assert_array_equal(grads[1], np.zeros_like(head))


def test_huge_logits_stay_exact():
    # exp(3000) overflows float32: only differences from the running peak may be exponentiated.
    arrays = inputs(scale=1000.0)
    values, grads = values_and_grads(logprob.token_logprobs, vocab_chunk=3)(*arrays)
    for got, want in zip(values, plain(*arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-3)
    assert all(np.isfinite(g).all() for g in grads)


def test_bfloat16_is_accumulated_in_float32():
    arrays = inputs(jnp.bfloat16)
    values, grads = values_and_grads(logprob.token_logprobs, vocab_chunk=3)(*arrays)
    want = plain(*(x.astype(jnp.float32) for x in arrays[:2]), arrays[2])
    for got, exact in zip(values, want, strict=True):
        # Products of bfloat16 numbers are exact in float32, so the inputs' rounding is the only one.
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-5)
    assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.bfloat16]


def test_float32_head_under_bfloat16_hidden_gets_a_float32_gradient():
    hidden, head, targets = inputs()
    ours = values_and_grads(logprob.token_logprobs, vocab_chunk=3)
    _, grads = ours(hidden.astype(jnp.bfloat16), head, targets)
    assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.float32]
    _, want = values_and_grads(plain, temperature=1.0)(hidden, head, targets)
    # bfloat16 keeps 8 bits, 2^-8 = 0.004 per number.
    np.testing.assert_allclose(grads[1], want[1], atol=0.05)


def test_jit_and_vmap_equal_eager():
    hidden, head, targets = inputs()
    eager = logprob.token_logprobs(hidden, head, targets, vocab_chunk=4)
    jitted, _ = values_and_grads(logprob.token_logprobs, vocab_chunk=4)(hidden, head, targets)
    mapped = jax.vmap(lambda h, t: logprob.token_logprobs(h[None], head, t[None], vocab_chunk=4))(
        hidden, targets
    )
    for a, b, c in zip(eager, jitted, mapped, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(a, c[:, 0], atol=1e-6)


def largest_in_jaxpr(jaxpr) -> int:
    """Elements of the largest intermediate, inner jaxprs included."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [math.prod(v.aval.shape) for v in equation.outvars]
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    sizes.append(largest_in_jaxpr(inner))
    return max(sizes)


def largest_in_hlo(text: str) -> int:
    shapes = re.findall(r"\b(?:f32|bf16|s32|pred|u32)\[([\d,]*)\]", text)
    return max(math.prod(int(n) for n in shape.split(",") if n) for shape in shapes)


@pytest.mark.parametrize(("chunk", "streams"), [(8, True), (7, True), (64, False)])
def test_no_array_with_as_many_elements_as_tokens_times_vocabulary(chunk, streams):
    # 2 x 16 tokens, 64 columns: [B, T, V] has 2048 elements, one row of it 1024. The largest array that is allowed has
    # max(B T chunk, V D, B T D) = 256. With chunk = V the array must show up, or the search would be blind.
    rows, length, vocab = 2, 16, 64
    arrays = inputs(shape=(rows, length), vocab=vocab)
    traced = values_and_grads(logprob.token_logprobs, vocab_chunk=chunk).trace(*arrays)
    in_jaxpr = largest_in_jaxpr(traced.jaxpr.jaxpr)
    in_hlo = largest_in_hlo(traced.lower().compile().as_text())
    if streams:
        assert max(in_jaxpr, in_hlo) <= 256 < length * vocab
    else:
        assert min(in_jaxpr, in_hlo) >= rows * length * vocab


def test_bad_arguments_are_refused():
    hidden, head, targets = inputs()
    with pytest.raises(ValueError, match=r"temperature = 0: must be > 0"):
        logprob.token_logprobs(hidden, head, targets, temperature=0)
    with pytest.raises(ValueError, match=r"vocab_chunk = 0: must be >= 1"):
        logprob.token_logprobs(hidden, head, targets, vocab_chunk=0)
    with pytest.raises(ValueError, match="head has 0 rows"):
        logprob.token_logprobs(hidden, head[:0], targets)
