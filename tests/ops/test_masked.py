import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.ops import masked

X = jnp.array([[1.0, 2.0, 6.0], [5.0, 7.0, 9.0]])
MASK = jnp.array([[True, True, True], [False, True, False]])


def test_hand_values():
    # row 0: 1 + 2 + 6 = 9, mean 3, squares (4 + 1 + 9) = 14: population sqrt(14/3), sample sqrt(14/2).
    # row 1: the 7 alone: sum 7, mean 7, both deviations 0.
    np.testing.assert_allclose(masked.masked_sum(X, MASK, axis=1), [9, 7])
    np.testing.assert_allclose(masked.masked_mean(X, MASK, axis=1), [3, 7])
    np.testing.assert_allclose(masked.masked_std(X, MASK, axis=1), [(14 / 3) ** 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(masked.masked_std(X, MASK, axis=1, ddof=1), [7**0.5, 0], rtol=1e-6)
    # everything: 1 + 2 + 6 + 7 = 16 over 4 elements; squares 9 + 4 + 4 + 9 = 26.
    np.testing.assert_allclose(masked.masked_mean(X, MASK), 4)
    np.testing.assert_allclose(masked.masked_std(X, MASK), (26 / 4) ** 0.5, rtol=1e-6)


@pytest.mark.parametrize("reduce", [masked.masked_sum, masked.masked_mean, masked.masked_std])
def test_nothing_unmasked_is_zero_with_zero_gradient(reduce):
    value, gradient = jax.value_and_grad(lambda x: reduce(x, jnp.zeros_like(MASK)))(X)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(X))


@pytest.mark.parametrize("reduce", [masked.masked_sum, masked.masked_mean, masked.masked_std])
def test_masked_values_matter_neither_to_value_nor_to_gradient(reduce):
    clean = jnp.where(MASK, X, 0)
    dirty = jnp.where(MASK, X, jnp.array([[1.0, 1.0, 1.0], [jnp.nan, 1.0, jnp.inf]]))
    for x in (clean, dirty):
        value, gradient = jax.value_and_grad(lambda x: reduce(x, MASK))(x)
        assert value == reduce(X, MASK)
        assert np.isfinite(gradient).all()
        assert (np.asarray(gradient)[~np.asarray(MASK)] == 0).all()


def test_std_of_equal_values_has_a_finite_gradient():
    gradient = jax.grad(lambda x: masked.masked_std(x, jnp.ones(3, bool)))(jnp.ones(3))
    np.testing.assert_array_equal(gradient, np.zeros(3))


def test_bfloat16_and_bool_are_reduced_in_float32():
    # bfloat16 counts to 256 and then stands still: 256 + 1 = 256.
    ones = jnp.ones(1000, jnp.bfloat16)
    total = masked.masked_sum(ones, jnp.ones(1000, bool))
    assert total == 1000 and total.dtype == jnp.float32
    share = masked.masked_mean(jnp.arange(1000) < 250, jnp.ones(1000, bool))
    assert share == 0.25 and share.dtype == jnp.float32


def test_jit_equals_eager():
    for reduce in (masked.masked_sum, masked.masked_mean, masked.masked_std):
        np.testing.assert_allclose(
            jax.jit(reduce, static_argnums=2)(X, MASK, 1), reduce(X, MASK, 1), rtol=1e-6
        )
