"""The delta rule in chunks against one token after the other, values and gradients."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.ops import delta_rule

SHAPE = (2, 11, 2)  # B, t, H
E, F = 3, 5


def draw(seed: int = 0, decay: float = 1.0, alike: bool = False) -> dict[str, jax.Array]:
    """Inputs as a layer makes them: keys and queries of norm 1, decays below 0, strengths in (0, 1)."""
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(2, *SHAPE, E))
    k = k[:, :1] + 0.01 * k if alike else k
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    arrays = {
        "q": unit(q),
        "k": unit(k),
        "v": rng.normal(size=(*SHAPE, F)),
        "log_decay": -decay * rng.exponential(size=SHAPE),
        "beta": np.ones(SHAPE) if alike else rng.uniform(size=SHAPE),
        "state": rng.normal(size=(SHAPE[0], SHAPE[2], E, F)),
    }
    return {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()}


def token_by_token(q, k, v, log_decay, beta, state):
    """Equation 10 of arXiv 2412.06464 as it is printed, with matrices I - beta k k^T."""

    def step(state, token):
        q, k, v, log_decay, beta = token
        beta = beta[..., None, None]
        forget = jnp.eye(E)[None, None] - beta * jnp.einsum("bhe,bhf->bhef", k, k)
        state = jnp.exp(log_decay)[..., None, None] * (forget @ state)
        state += beta * jnp.einsum("bhe,bhf->bhef", k, v)
        return state, jnp.einsum("bhef,bhe->bhf", state, q)

    tokens = [jnp.moveaxis(x, 1, 0) for x in (q, k, v, log_decay, beta)]
    state, out = jax.lax.scan(step, state, tokens)
    return jnp.moveaxis(out, 0, 1), state


@functools.partial(jax.jit, static_argnums=0)
def values_and_gradients(chunk, inputs):
    """Of the rule in chunks; 0: of the recurrence."""
    rule = functools.partial(delta_rule.gated_delta, chunk=chunk) if chunk else token_by_token

    def loss(inputs):
        out, state = rule(**inputs)
        return jnp.sum(jnp.sin(out)) + jnp.sum(jnp.cos(state)), (out, state)

    gradients, values = jax.grad(loss, has_aux=True)(inputs)
    return values, gradients


@pytest.mark.parametrize("kind", [{}, {"decay": 40.0}, {"decay": 0.0, "alike": True}])
def test_chunks_equal_one_token_after_the_other(kind):
    """Also where nearly all is forgotten at once, and where nothing is and every key is nearly the same."""
    inputs = draw(**kind)
    # Three chunks, the last one not full.
    found, expected = values_and_gradients(4, inputs), values_and_gradients(0, inputs)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, two, atol=2e-5 * max(1.0, np.abs(two).max()), rtol=0)


step = jax.jit(delta_rule.gated_delta)


def read_alone(inputs, num_tokens):
    """(outputs, state) of the first tokens, each in a call of its own."""
    state, parts = inputs["state"], []
    for t in range(num_tokens):
        token = {name: x[:, t : t + 1] for name, x in inputs.items() if name != "state"}
        part, state = step(**token, state=state)
        parts.append(part)
    return np.concatenate(parts, axis=1), state


def test_one_token_at_a_time_equals_all_at_once():
    inputs = draw(1)
    (out, last), _ = values_and_gradients(4, inputs)
    parts, state = read_alone(inputs, SHAPE[1])
    np.testing.assert_allclose(parts, out, atol=1e-5)
    np.testing.assert_allclose(state, last, atol=1e-5)


def test_what_writes_nothing_leaves_the_state_as_it_is():
    inputs = draw(2)
    inputs |= {name: inputs[name].at[:, 6:].set(0.0) for name in ("beta", "log_decay")}
    (_, last), gradients = values_and_gradients(4, inputs)
    _, state = read_alone(inputs, 6)
    np.testing.assert_allclose(last, state, atol=1e-5)
    np.testing.assert_array_equal(gradients["v"][:, 6:], 0.0)
    np.testing.assert_array_equal(read_alone(inputs, 7)[1], state)  # bit for bit, as in decoding
