"""bfloat16: what training divides by comes from the update's own program, so that rounding clips nothing."""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import parts, sharding, timing, train
from jaxrl_reason.models import policy as policies
from jaxrl_reason.types import Row

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
SHRUNKEN = {
    "model.source": "tiny",
    "model.dtype": "bfloat16",
    "task.length": 3,
    "task.modulus": 5,
    "rollout.num_prompts": 8,
    "rollout.group_size": 4,
    "rollout.chunk_rows": 32,
    "optim.microbatch_rows": 16,
    "optim.learning_rate": 1e-9,
}


@pytest.fixture
def optimized():
    """Fused as in a run: what the suite switches off is what rounds differently in different programs."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def policy() -> policies.Policy:
    """Random weights, scaled up so that its logits are large enough to be rounded."""
    policy = policies.load_policy("tiny")
    return dataclasses.replace(
        policy, params=jax.tree.map(lambda x: np.asarray(2.0 * x), policy.params)
    )


def make_run(policy, name: str, **changes):
    values = SHRUNKEN | {k.replace("__", "."): v for k, v in changes.items()}
    config = config_lib.load(CONFIGS / f"{name}.py", [f"{k}={v}" for k, v in values.items()])
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    policy = dataclasses.replace(
        policy, config=dataclasses.replace(policy.config, dtype=config.model.dtype)
    )
    return parts.make_run(config, policy=policy, mesh=mesh)


def sampled_rows(run) -> list[Row]:
    """Completions that the run's own sampler wrote, every second token gated, advantages of both signs."""
    clock = timing.Clock()
    stages = parts.bind_stages(run, run.policy.params, jax.random.key(0), run.task.verify, clock)
    groups, _ = train.collect(run, stages, 0)
    rows = []
    for group in groups:
        for i, completion in enumerate(group.completions):
            size = len(completion.tokens)
            gate = np.arange(size) % 2 == i % 2 if size > 1 else np.ones(size, bool)
            sign = np.full(size, 1.0 if i % 2 else -1.0, np.float32)
            rows.append(Row(group.prompt, completion.tokens, gate, sign))
    return rows


def figures(metrics) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def assert_unclipped(results: dict[str, float]) -> None:
    assert results["policy/tokens"] > 0
    assert results["policy/ratio_max"] == results["policy/ratio_mean"] == 1
    assert results["policy/kl"] == 0
    assert results["policy/clip_frac_low"] == results["policy/clip_frac_high"] == 0


def test_a_first_minibatch_is_on_policy_whatever_the_rounding(policy):
    run = make_run(policy, "gspo_arithmetic")
    optimizer = parts.make_optimizer(run)
    state = parts.first_state(run, optimizer)
    rows = sampled_rows(run)
    update = parts.make_update(run, optimizer)
    state, results = update(state, parts.place_batch(run, parts.to_batch(run, rows)))
    assert_unclipped(figures(results))
    # What another program's rounding does: a hundredth of a nat in every token.
    scored = run.engine.score(
        run.policy.params, [r.prompt for r in rows], [r.completion for r in rows], temperature=1.0
    )
    stale = [
        dataclasses.replace(r, old_logprobs=s - 0.01 * r.advantages[0])
        for r, s in zip(rows, scored, strict=True)
    ]
    state, results = update(state, parts.place_batch(run, parts.to_batch(run, stale)))
    assert min(figures(results)[f"policy/clip_frac_{side}"] for side in ("low", "high")) > 0.4
    assert update.num_compiles == 1


def test_the_gradient_is_the_unclipped_one(policy):
    run = make_run(policy, "gspo_arithmetic")
    rows = sampled_rows(run)

    def moved(**changes):
        with run.config.unlocked():
            run.config.update_from_flattened_dict(
                {k.replace("__", "."): v for k, v in changes.items()}
            )
        # Plain gradient descent: the parameters move by the gradient itself.
        optimizer = optax.sgd(1.0)
        state = parts.first_state(run, optimizer)
        before = jax.tree.map(np.asarray, state.params)
        batch = parts.place_batch(run, parts.to_batch(run, rows))
        state, _ = parts.make_update(run, optimizer)(state, batch)
        moves = jax.tree.map(lambda a, b: np.ravel(np.asarray(b) - a), before, state.params)
        return np.concatenate(jax.tree.leaves(moves)).astype(np.float64)

    shipped = moved()
    opened = moved(loss__clip_low=0.9, loss__clip_high=9.0)
    cosine = shipped @ opened / np.linalg.norm(shipped) / np.linalg.norm(opened)
    assert cosine == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(shipped) == pytest.approx(np.linalg.norm(opened), rel=1e-5)


@pytest.mark.slow
def test_later_minibatches_of_an_optimized_program(policy, optimized):
    test_later_minibatches_divide_by_the_updates_own_program(policy)


def test_later_minibatches_divide_by_the_updates_own_program(policy):
    run = make_run(policy, "gspo_arithmetic", optim__minibatches=2)
    optimizer = parts.make_optimizer(run)
    state = parts.first_state(run, optimizer)
    update = parts.make_update(run, optimizer)
    rows = sampled_rows(run)
    halves = [parts.place_batch(run, parts.to_batch(run, part)) for part in (rows[::2], rows[1::2])]
    params = jax.tree.map(np.asarray, state.params)
    state, (first, second) = parts.with_old_logprobs(update, state, halves)
    jax.tree.map(np.testing.assert_array_equal, params, state.params)
    assert int(state.num_updates) == 0
    # Nothing has moved the policy yet: every ratio is 1 to the last bit.
    for batch in (first, second):
        assert not np.asarray(batch.on_policy).any()
        mask = np.asarray(batch.loss_mask)
        assert (np.asarray(batch.old_logprobs)[mask] < 0).all()
        assert not np.asarray(batch.old_logprobs)[~np.asarray(batch.token_mask)].any()
        _, logprobs = update.logprobs(jax.tree.map(jnp.copy, state), batch)
        np.testing.assert_array_equal(logprobs, batch.old_logprobs)
    state, results = update(state, second)
    assert_unclipped(figures(results))
    assert update.num_compiles == 1


def test_a_foreign_update_cannot_score_later_minibatches(policy):
    run = make_run(policy, "gspo_arithmetic", optim__minibatches=2)
    state = parts.first_state(run, parts.make_optimizer(run))
    batch = parts.to_batch(run, [Row((3,), (4,), np.ones(1, bool), np.ones(1, np.float32))])
    with pytest.raises(TypeError, match="optim.minibatches > 1 needs an update_fn"):
        parts.with_old_logprobs(lambda state, batch: (state, {}), state, [batch])
    assert parts.with_old_logprobs(lambda state, batch: (state, {}), state, []) == (state, [])
