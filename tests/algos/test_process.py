"""Process advantages by hand, and what must hold for each of them whatever the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.algos import advantages, process

STATIC = {
    "prefix": (process.prefix_advantages, dict(alpha=0.5)),
    "relu": (process.prefix_advantages, dict(alpha=0.5, relu=True)),
    "cliff": (process.cliff_advantages, dict(prefix_scale=0.25)),
}


def spans(lengths, width) -> np.ndarray:
    return np.arange(width)[None, :] < np.asarray(lengths)[:, None]


def random_case(seed=0, rows=12, width=9, groups=3):
    """(correct, prefix, mask, group_ids); every group has both outcomes."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width, rows)
    correct = np.arange(rows) % (2 * groups) < groups
    prefix = spans(rng.integers(0, lengths + 1), width)
    return correct, prefix, spans(lengths, width), np.arange(rows) % groups


def call(name, case, *, jit=True, num_groups=3):
    function, settings = STATIC[name]
    if jit:
        function = jax.jit(function, static_argnames=("num_groups", *settings))
    return np.asarray(function(*map(jnp.asarray, case), num_groups=num_groups, **settings))


def test_vppo_by_hand():
    # Lengths 10, 20, 8, 12; the first is right, the others have rewarded prefixes of 9, 0 and 5 tokens.
    mask = spans([10, 20, 8, 12], 20)
    case = np.array([True, False, False, False]), spans([0, 9, 0, 5], 20), mask, np.zeros(4, int)
    got = call("prefix", case, num_groups=1)
    # A = 1, 0.5 x 9/20, 0, 0.5 x 5/12: mean (1 + 0.225 + 0 + 0.20833) / 4 = 0.35833.
    mean = 0.358333
    np.testing.assert_allclose(got[0, :10], 1 - mean, rtol=1e-5)
    np.testing.assert_allclose(got[1, :9], 0.5 - mean, rtol=1e-5)
    np.testing.assert_allclose(got[1, 9:], -mean, rtol=1e-5)
    np.testing.assert_allclose(got[2, :8], -mean, rtol=1e-5)
    assert (got[~mask] == 0).all()
    # Centred over completions, not over tokens: 17 - 50 x 0.35833.
    of_row = got.sum(axis=1) / mask.sum(axis=1)
    assert of_row.sum() == pytest.approx(0, abs=1e-6)
    assert got.sum() == pytest.approx(-0.916667, abs=1e-5)


def test_relu_lifts_the_prefix_of_wrong_completions_alone():
    # Three right, one wrong with half of it good: mean (3 + 0.25) / 4 = 0.8125 > alpha.
    mask = np.ones((4, 4), bool)
    case = np.array([True, True, True, False]), spans([4, 4, 4, 2], 4), mask, np.zeros(4, int)
    np.testing.assert_allclose(call("prefix", case, num_groups=1)[3], [-0.3125] * 2 + [-0.8125] * 2)
    np.testing.assert_allclose(call("relu", case, num_groups=1)[3], [0, 0] + [-0.8125] * 2)
    np.testing.assert_allclose(call("relu", case, num_groups=1)[:3], 0.1875)


def test_cliff_by_hand():
    # mu = 1/4, sigma = sqrt(3)/4: A_cor = sqrt 3, A_inc = -1/sqrt 3; prefixes 0.25 sqrt 3. 10 + 20 + 8 + 12 tokens.
    mask = spans([10, 20, 8, 12], 20)
    case = np.array([True, False, False, False]), spans([0, 9, 0, 5], 20), mask, np.zeros(4, int)
    got = call("cliff", case, num_groups=1)
    root = np.sqrt(3)
    offset = (10 * root + (9 + 5) * root / 4 - (11 + 8 + 7) / root) / 50
    np.testing.assert_allclose(got[0, :10], root - offset, rtol=1e-5)
    np.testing.assert_allclose(got[1, :9], root / 4 - offset, rtol=1e-5)
    np.testing.assert_allclose(got[1, 9:], -1 / root - offset, rtol=1e-5)
    assert got.sum() == pytest.approx(0, abs=1e-4)


def test_process_grpo_by_hand():
    # Steps 1, 0 | 1, 1, 1: mean 4/5, std 0.4; normalised 0.5, -2 | 0.5, 0.5, 0.5; to go -1.5, -2 | 1.5, 1, 0.5.
    rewards = jnp.array([[1.0, 0.0, 99.0], [1.0, 1.0, 1.0]])
    mask = jnp.array([[True, True, False], [True, True, True]])
    ids = jnp.array([[0, 0, 1, -1], [0, 1, 1, 2]])
    got = process.step_advantages(rewards, mask, ids, jnp.array([0, 0]), num_groups=1)
    want = [[-1.5, -1.5, -2, 0], [1.5, 1, 1, 0.5]]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    sample = process.step_advantages(rewards, mask, ids, jnp.array([0, 0]), num_groups=1, ddof=1)
    np.testing.assert_allclose(sample, np.array(want) * np.sqrt(4 / 5), rtol=1e-5, atol=1e-6)


def step_case(seed=0, rows=12, steps=4, width=10, groups=3):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, steps + 1, rows)
    ids = np.full((rows, width), -1)
    for row, count in zip(ids, counts, strict=True):
        ends = np.sort(rng.integers(0, count, rng.integers(count, width + 1)))
        row[: len(ends)] = ends
    return (
        rng.random((rows, steps)).astype(np.float32),
        spans(counts, steps),
        ids,
        np.arange(rows) % groups,
    )


def steps_call(case, *, jit=True, num_groups=3):
    function = process.step_advantages
    if jit:
        function = jax.jit(function, static_argnames="num_groups")
    return np.asarray(function(*map(jnp.asarray, case), num_groups=num_groups))


def test_one_step_each_is_outcome_grpo():
    rng = np.random.default_rng(3)
    rewards, ids = rng.random(12).astype(np.float32), np.arange(12) % 3
    case = rewards[:, None], np.ones((12, 1), bool), np.zeros((12, 5), int), ids
    want = advantages.group_advantages(
        jnp.asarray(rewards), jnp.asarray(ids), kind="zscore", num_groups=3
    )
    np.testing.assert_allclose(steps_call(case), np.tile(want[:, None], 5), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_equal_step_rewards_give_exactly_zero(value):
    _, mask, ids, groups = step_case()
    got = steps_call((np.full(mask.shape, value, np.float32), mask, ids, groups))
    np.testing.assert_array_equal(got, np.zeros(ids.shape))


def test_permuted_step_rewards_change_process_advantages():
    rewards, mask, ids, groups = step_case(rows=3, groups=1)
    mask = np.ones_like(mask)
    ids = np.tile(np.arange(10) % 4, (3, 1))
    ids.sort(axis=1)
    got = steps_call((rewards, mask, ids, groups), num_groups=1)
    assert not np.allclose(got, steps_call((rewards[:, ::-1], mask, ids, groups), num_groups=1))


def test_without_prefixes_they_reduce_to_outcome_advantages():
    correct, prefix, mask, ids = random_case()
    none = np.zeros_like(prefix)
    rewards = jnp.asarray(correct, jnp.float32)
    for name, kind in (("prefix", "centred"), ("cliff", "zscore")):
        want = advantages.group_advantages(
            rewards, jnp.asarray(ids), kind=kind, num_groups=3, eps=1e-12
        )
        # Cliff's offset is the token mean: 0 where all completions are equally long.
        full = np.ones_like(mask)
        got = call(name, (correct, none, full, ids))
        np.testing.assert_allclose(got, np.tile(want[:, None], full.shape[1]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", STATIC)
def test_equal_outcomes(name):
    correct, prefix, mask, ids = random_case()
    everything = np.ones_like(correct)
    np.testing.assert_array_equal(call(name, (everything, prefix, mask, ids)), 0)
    np.testing.assert_array_equal(call(name, (~everything, np.zeros_like(prefix), mask, ids)), 0)
    # All wrong: VPPO still learns from the prefixes, Cliff has no outcome to compare with.
    learns = np.any(call(name, (~everything, prefix, mask, ids)) != 0)
    assert learns == (name != "cliff")


def check_invariances(compute, case, batched):
    """Jit, permutation of rows, independence of groups, padding columns; `batched`: arguments with columns."""
    got = compute(case)
    np.testing.assert_allclose(compute(case, jit=False), got, rtol=1e-5, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(got))
    permuted = compute(tuple(x[order] for x in case))
    np.testing.assert_allclose(permuted, got[order], rtol=1e-5, atol=1e-6)
    changed = tuple(
        x[:, ::-1] if i == 0 and x.ndim == 2 else ~x if i == 0 else x for i, x in enumerate(case)
    )
    mixed = tuple(
        np.where((case[-1] == 0).reshape(-1, *[1] * (x.ndim - 1)), y, x)
        for x, y in zip(case, changed, strict=True)
    )
    again = compute(mixed)
    np.testing.assert_allclose(again[case[-1] != 0], got[case[-1] != 0], rtol=1e-6)
    assert not np.allclose(again[case[-1] == 0], got[case[-1] == 0])
    wide = tuple(
        np.pad(x, ((0, 0), (0, 3)), constant_values=-1 if x.dtype == int else False)
        if i in batched
        else x
        for i, x in enumerate(case)
    )
    padded = compute(wide)
    np.testing.assert_allclose(padded[:, :-3], got, rtol=1e-6)
    assert (padded[:, -3:] == 0).all()


@pytest.mark.parametrize("name", STATIC)
def test_invariances(name):
    check_invariances(lambda case, **k: call(name, case, **k), random_case(), (1, 2))


def test_invariances_of_steps():
    check_invariances(steps_call, step_case(), (2,))


def test_bfloat16_step_rewards_are_averaged_in_float32():
    rewards, *rest = step_case()
    half = jnp.asarray(rewards, jnp.bfloat16)
    got = process.step_advantages(half, *map(jnp.asarray, rest), num_groups=3)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(
        got, steps_call((half.astype(jnp.float32), *rest)), rtol=1e-5, atol=1e-6
    )
