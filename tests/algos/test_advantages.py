import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.algos import advantages

KINDS = sorted(advantages.ADVANTAGES)


group_advantages = jax.jit(
    advantages.group_advantages, static_argnames=("kind", "num_groups", "ddof", "eps")
)


def compute(rewards, ids, row_mask=None, **kwargs):
    """Jitted: eagerly, every operation would compile alone on every shape."""
    arguments = dict(kind="zscore", num_groups=int(max(ids)) + 1) | kwargs
    row_mask = np.ones(len(rewards), bool) if row_mask is None else row_mask
    arrays = (jnp.asarray(rewards, jnp.float32), jnp.asarray(ids, jnp.int32))
    return np.asarray(group_advantages(*arrays, row_mask=jnp.asarray(row_mask), **arguments))


def by_loop(rewards, ids, row_mask, kind, ddof, eps):
    """One row at a time, in float64."""
    out = np.zeros(len(rewards))
    for i in range(len(rewards)):
        if not row_mask[i]:
            continue
        group = np.asarray(
            [rewards[j] for j in range(len(rewards)) if ids[j] == ids[i] and row_mask[j]],
            np.float64,
        )
        if len(group) == 1 or (group == group[0]).all():
            continue
        centred = rewards[i] - group.mean()
        if kind == "zscore":
            out[i] = centred / (group.std(ddof=ddof) + eps)
        elif kind == "centred":
            out[i] = centred
        else:
            out[i] = rewards[i] - (group.sum() - rewards[i]) / (len(group) - 1)
    return out


def test_hand_values():
    # Group 0: rewards 1, 0, 0, 1: mean 1/2, population std 1/2, sample std sqrt(4 x 1/4 / 3) = 0.57735.
    # Group 1: rewards 3, 0: mean 3/2, population std 3/2; the others' means are 0 and 3.
    rewards, ids = [1, 3, 0, 0, 0, 1], [0, 1, 0, 1, 0, 0]
    np.testing.assert_allclose(compute(rewards, ids), [1, 1, -1, -1, -1, 1], rtol=1e-5)
    np.testing.assert_allclose(
        compute(rewards, ids, ddof=1)[[0, 2]], [0.866025, -0.866025], rtol=1e-5
    )
    np.testing.assert_allclose(
        compute(rewards, ids, kind="centred"), [0.5, 1.5, -0.5, -1.5, -0.5, 0.5]
    )
    # Leave one out in group 0: 1 - (0 + 0 + 1) / 3 = 2/3 and 0 - (1 + 0 + 1) / 3 = -2/3.
    want = [2 / 3, 3, -2 / 3, -3, -2 / 3, 2 / 3]
    np.testing.assert_allclose(compute(rewards, ids, kind="leave_one_out"), want, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "groups", "spread"), [(64, 128, 1.0), (128, 16, 1.0), (512, 60, 1e-3)]
)
def test_loop_equals_vectorised_on_ragged_groups(kind, rows, groups, spread):
    # The last case has rewards of low variance around 1: their mean in float32 is not good enough.
    rng = np.random.default_rng(rows)
    ids, mask = rng.integers(0, groups, rows), rng.random(rows) < 0.8
    rewards = (rng.integers(0, 3, rows) * spread + (1 if spread < 1 else 0)).astype(np.float32)
    for ddof in (0, 1) if kind == "zscore" else (0,):
        got = compute(rewards, ids, mask, kind=kind, ddof=ddof, num_groups=groups)
        np.testing.assert_allclose(
            got, by_loop(rewards, ids, mask, kind, ddof, 1e-6), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -7.3])
def test_equal_rewards_and_groups_of_one_give_exactly_zero(kind, reward):
    # Three times 0.1 summed in float32 and divided by 3 is not 0.1; divided by eps the rest would be a gradient.
    np.testing.assert_array_equal(
        compute([reward] * 4, [0, 0, 0, 1], kind=kind, ddof=1), np.zeros(4)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_padding_rows_change_nothing_and_get_zero(kind):
    rewards, ids = [1.0, 0.0, 0.5, 0.25, 4.0], [0, 0, 0, 1, 1]
    got = compute(
        [*rewards, np.nan, 100.0], [*ids, 0, 1], [True] * 5 + [False] * 2, kind=kind, num_groups=2
    )
    np.testing.assert_array_equal(got, [*compute(rewards, ids, kind=kind), 0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_independent_and_rows_permute(kind):
    rng = np.random.default_rng(1)
    rewards, ids = rng.random(12).astype(np.float32), np.arange(12) % 3
    base = compute(rewards, ids, kind=kind)
    changed = np.where(ids == 2, rewards + rng.random(12).astype(np.float32), rewards)
    again = compute(changed, ids, kind=kind)
    np.testing.assert_array_equal(again[ids != 2], base[ids != 2])
    assert (again[ids == 2] != base[ids == 2]).all()
    order = rng.permutation(12)
    np.testing.assert_allclose(
        compute(rewards[order], ids[order], kind=kind), base[order], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
def test_jit_equals_eager_and_bfloat16_is_averaged_in_float32(kind):
    rewards, ids = jnp.arange(8, dtype=jnp.bfloat16) / 4, jnp.arange(8) // 4
    arguments = dict(kind=kind, num_groups=2)
    eager = advantages.group_advantages(rewards, ids, **arguments)
    jitted = group_advantages(rewards, ids, **arguments)
    assert eager.dtype == jnp.float32
    np.testing.assert_allclose(eager, jitted, rtol=1e-6)
    np.testing.assert_allclose(
        eager, compute(rewards.astype(jnp.float32), ids, kind=kind), rtol=1e-6
    )


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="advantage kind = 'std': must be one of zscore, centred"):
        advantages.group_advantages(jnp.zeros(1), jnp.zeros(1, int), kind="std", num_groups=1)


def test_overlong_penalty():
    # Budget 20, last 8: free up to 12, then -1/8 per token, -1 at 20 and beyond.
    lengths = jnp.array([0, 12, 13, 16, 20, 25])
    got = advantages.overlong_penalty(lengths, max_tokens=20, penalty_tokens=8)
    np.testing.assert_allclose(got, [0, 0, -0.125, -0.5, -1, -1])
    off = advantages.overlong_penalty(lengths, max_tokens=20, penalty_tokens=0)
    np.testing.assert_array_equal(off, np.zeros(6))
    with pytest.raises(ValueError, match=r"penalty_tokens = 21: must be in \[0, 20\]"):
        advantages.overlong_penalty(lengths, max_tokens=20, penalty_tokens=21)


def test_whitening_by_hand():
    # By rows: 1, 0, 0, 1: mean 1/2, population std 1/2, sample std sqrt(4 x 1/4 / 3) = 0.57735.
    values, ones = jnp.array([1.0, 0.0, 0.0, 1.0]), jnp.ones(4, int)
    np.testing.assert_allclose(advantages.whiten(values, ones), [1, -1, -1, 1], rtol=1e-5)
    np.testing.assert_allclose(
        advantages.whiten(values, ones, ddof=1), 0.866025 * np.array([1, -1, -1, 1]), rtol=1e-5
    )
    # By tokens: lengths 6, 1, 1, 0: mean 6/8, variance (6/16 + 2 x 9/16) / 8 = 3/16; the last row counts nowhere.
    got = advantages.whiten(values, jnp.array([6, 1, 1, 0]))
    want = np.array([0.25, -0.75, -0.75, 0.0]) / np.sqrt(3 / 16)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert float(jnp.sum(got * jnp.array([6, 1, 1, 0]))) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3])
def test_whitening_of_equal_values_is_exactly_zero(value):
    got = advantages.whiten(jnp.full(5, value), jnp.array([3, 1, 2, 0, 7]))
    np.testing.assert_array_equal(got, np.zeros(5))


def test_whitening_ignores_padding_permutes_and_takes_bfloat16():
    rng = np.random.default_rng(2)
    values, weights = rng.random(8).astype(np.float32), rng.integers(1, 9, 8)
    whiten = jax.jit(advantages.whiten)
    want = whiten(jnp.asarray(values), jnp.asarray(weights))
    np.testing.assert_allclose(
        want, advantages.whiten(jnp.asarray(values), jnp.asarray(weights)), rtol=1e-5, atol=1e-6
    )
    padded = whiten(jnp.append(jnp.asarray(values), jnp.nan), jnp.append(jnp.asarray(weights), 0))
    np.testing.assert_allclose(padded, [*want, 0], rtol=1e-5, atol=1e-6)
    order = rng.permutation(8)
    permuted = whiten(jnp.asarray(values[order]), jnp.asarray(weights[order]))
    np.testing.assert_allclose(permuted, want[order], rtol=1e-5, atol=1e-6)
    half = jnp.asarray(values, jnp.bfloat16)
    got = whiten(half, jnp.asarray(weights))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(
        got, whiten(half.astype(jnp.float32), jnp.asarray(weights)), rtol=1e-6
    )
