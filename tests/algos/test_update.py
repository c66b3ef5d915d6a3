import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reason import config
from jaxrl_reason.algos import losses, update
from jaxrl_reason.types import TrainState, take_rows
from tests.algos.batches import VOCAB, random_batch

WIDTH = 8


def init_params():
    rng = np.random.default_rng(0)
    shapes = {"embed": (VOCAB, WIDTH), "mix": (WIDTH, WIDTH), "head": (VOCAB, WIDTH)}
    return {
        name: jnp.asarray(0.5 * rng.standard_normal(s), jnp.float32) for name, s in shapes.items()
    }


def hidden_fn(params, tokens, token_mask):
    """A causal model: running sum of embeddings, mixed."""
    embedded = jnp.where(token_mask[..., None], params["embed"][tokens], 0)
    return jnp.tanh(jnp.cumsum(embedded, axis=1) @ params["mix"])


def head_fn(params):
    return params["head"]


def loss_config(**changes):
    c = config.base().loss
    with c.unlocked():
        c.update(dict(ratio="token", clip_low=0.2, clip_high=0.28) | changes)
    return c


def optim_config(**changes):
    c = config.base().optim
    with c.unlocked():
        c.update(changes)
    return c


SGD = optax.sgd(1.0)
ADAMW = update.make_optimizer(optim_config(learning_rate=1e-2, weight_decay=0.1), num_updates=50)


def build(optimizer=SGD, microbatch_rows=2, loss=None, hidden_fn=hidden_fn, **kwargs):
    return update.make_update(
        hidden_fn,
        head_fn,
        optimizer,
        loss_config=loss or loss_config(),
        microbatch_rows=microbatch_rows,
        temperature=1.0,
        max_completion=4,
        **kwargs,
    )


@functools.cache
def shared(**kwargs):
    """Compiled once for all tests that ask for the same."""
    return build(streams=("policy", "repair"), **kwargs)


def new_state(optimizer=SGD, params=None):
    # Copies: a donated state must not take the caller's arrays with it.
    params = jax.tree.map(jnp.copy, init_params() if params is None else params)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.random.key(7))


def host(state_or_tree):
    """Leaves as numpy, random keys as their words."""

    def one(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return jax.tree.map(one, state_or_tree)


def assert_trees_close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(host(a)), jax.tree.leaves(host(b)), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


def assert_trees_equal(a, b):
    for x, y in zip(jax.tree.leaves(host(a)), jax.tree.leaves(host(b)), strict=True):
        np.testing.assert_array_equal(x, y)


@functools.partial(jax.jit, static_argnames=("words", "kl_coef", "entropy_coef"))
def whole_batch_gradient(
    batch, words=("seq_mean_token_mean", "token"), kl_coef=0.0, entropy_coef=0.0
):
    """(loss, gradient) by plain autodiff, without the update's machinery."""
    aggregation, ratio = words
    coefficients = losses.row_coefficients(batch, aggregation=aggregation, max_completion=4)

    def loss(params):
        hidden = hidden_fn(params, batch.tokens, batch.token_mask)
        logprobs, entropy = losses.completion_logprobs(hidden, head_fn(params), batch.tokens)
        kwargs = dict(
            ratio=ratio, clip_low=0.2, clip_high=0.28, kl_coef=kl_coef, entropy_coef=entropy_coef
        )
        return losses.policy_loss(logprobs, entropy, batch, coefficients, **kwargs)[0]

    return jax.value_and_grad(loss)(init_params())


@pytest.mark.parametrize(
    ("aggregation", "ratio", "splits"),
    [
        ("seq_mean_token_mean", "sequence", (1, 2, 4, 8)),
        ("token_mean", "token", (4,)),
        ("seq_sum_over_const", "token", (2,)),
    ],
)
def test_microbatch_split_changes_neither_loss_nor_gradient_nor_parameters(
    aggregation, ratio, splits
):
    batch = random_batch(reference=True)
    c = loss_config(
        aggregation=aggregation, ratio=ratio, kl_coef=0.1, entropy_coef=0.01, vocab_chunk=4
    )
    want_loss, want_gradient = whole_batch_gradient(batch, (aggregation, ratio), 0.1, 0.01)
    for rows in splits:
        state, metrics = build(microbatch_rows=rows, loss=c)(new_state(), batch)
        # sgd(1) makes the step the gradient.
        gradient = jax.tree.map(lambda before, after: before - after, init_params(), state.params)
        np.testing.assert_allclose(metrics["policy/loss"], want_loss, rtol=1e-5, atol=1e-6)
        assert_trees_close(gradient, want_gradient, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            metrics["policy/grad_norm"], optax.tree.norm(want_gradient), rtol=1e-5
        )
        np.testing.assert_allclose(
            metrics["policy/update_norm"], optax.tree.norm(want_gradient), rtol=1e-5
        )
        np.testing.assert_allclose(
            metrics["policy/param_norm"], optax.tree.norm(state.params), rtol=1e-6
        )
        assert metrics["policy/live_rows"] == 8 and state.num_updates == 1
        assert all(x.dtype == jnp.float32 and x.shape == () for x in metrics.values())


def test_a_mean_of_microbatch_means_would_differ():
    # The check above can fail: with denominators per microbatch the token mean is another number.
    batch, words = random_batch(), ("token_mean", "token")
    want, _ = whole_batch_gradient(batch, words)
    halves = (slice(0, 4), slice(4, 8))
    naive = np.mean([whole_batch_gradient(take_rows(batch, rows), words)[0] for rows in halves])
    assert abs(naive - want) > 1e-3


def test_fifty_updates_follow_the_same_trajectory_8x1_and_1x8():
    whole, split = build(ADAMW, microbatch_rows=8), build(ADAMW, microbatch_rows=1)
    a, b, residuals = new_state(ADAMW), new_state(ADAMW), []
    for seed in range(50):
        batch = random_batch(seed=seed)
        a, metrics_a = whole(a, batch)
        b, metrics_b = split(b, batch)
        residuals.append(float(metrics_a["policy/loss"] - metrics_b["policy/loss"]))
    assert np.abs(residuals).max() < 1e-3
    # A drift would have a sign; rounding has none.
    assert abs(np.mean(residuals)) < 1e-5
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), a.params, init_params())
    assert min(jax.tree.leaves(moved)) > 0.05
    assert_trees_close(a.params, b.params, atol=1e-3)
    assert a.num_updates == 50 and whole.num_compiles == split.num_compiles == 1


def compiles_in(caplog):
    return sum("Compiling jit(traced)" in record.message for record in caplog.records)


def test_three_updates_compile_once_and_padding_rows_cost_nothing(caplog):
    computed = []

    def counting(params, tokens, token_mask):
        jax.debug.callback(lambda: computed.append(1))
        return hidden_fn(params, tokens, token_mask)

    step = build(microbatch_rows=2, hidden_fn=counting)
    state = new_state()
    for live, microbatches in ((3, 2), (8, 4), (0, 0), (1, 1)):
        computed.clear()
        with jax.log_compiles():
            state, metrics = step(state, random_batch(seed=live, live=live))
        jax.block_until_ready(state)
        jax.effects_barrier()
        assert len(computed) == microbatches
        assert metrics["policy/live_rows"] == live
    assert step.num_compiles == compiles_in(caplog) == 1
    with jax.log_compiles():
        step(state, random_batch(rows=10))
    assert step.num_compiles == compiles_in(caplog) == 2


def test_padding_rows_may_stand_anywhere():
    batch = random_batch(live=5)
    order = np.array([6, 0, 7, 1, 2, 5, 3, 4])
    want_loss, want = whole_batch_gradient(take_rows(batch, slice(0, 5)))
    for b in (batch, take_rows(batch, order)):
        state, metrics = shared()(new_state(), b)
        np.testing.assert_allclose(metrics["policy/loss"], want_loss, rtol=1e-5)
        got = jax.tree.map(lambda before, after: before - after, init_params(), state.params)
        assert_trees_close(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", ["no live rows", "nan advantage", "nan parameter"])
def test_what_would_do_harm_is_not_applied(case):
    batch, params = random_batch(), init_params()
    if case == "no live rows":
        batch = random_batch(live=0)
    elif case == "nan advantage":
        batch = batch._replace(advantages=batch.advantages.at[0, 2].set(jnp.nan))
    else:
        params["mix"] = params["mix"].at[0, 0].set(jnp.nan)
    before = new_state(ADAMW, params)
    state, metrics = shared(optimizer=ADAMW, donate=False)(before, batch)
    # Weight decay and Adam's moments stand still too.
    assert_trees_equal(state._replace(num_updates=before.num_updates), before)
    assert state.num_updates == 1
    assert metrics["policy/nonfinite"] == (case != "no live rows")
    assert metrics["policy/skipped"] == 1 and metrics["policy/update_norm"] == 0


def test_state_is_donated_unless_told_otherwise():
    batch = random_batch()
    for step, optimizer, donates in (
        (shared(), SGD, True),
        (shared(optimizer=ADAMW, donate=False), ADAMW, False),
    ):
        state = new_state(optimizer)
        step(state, batch)
        assert all(x.is_deleted() == donates for x in jax.tree.leaves(state._replace(key=None)))
    assert not batch.tokens.is_deleted()


def test_on_policy_identity():
    # Ratio 1 everywhere: approximate KL below 1e-8, nothing clipped.
    batch = random_batch()
    params = init_params()
    hidden = hidden_fn(params, batch.tokens, batch.token_mask)
    old, entropy = losses.completion_logprobs(
        hidden, head_fn(params), batch.tokens, temperature=1.0
    )
    _, metrics = shared()(new_state(), batch._replace(old_logprobs=old))
    for stream in ("policy", "repair"):
        assert metrics[f"{stream}/kl"] < 1e-8
        assert metrics[f"{stream}/clip_frac_low"] == metrics[f"{stream}/clip_frac_high"] == 0
        np.testing.assert_allclose(metrics[f"{stream}/ratio_mean"], 1, rtol=1e-6)
    of_policy = np.asarray(batch.loss_mask) & (np.asarray(batch.stream) == 0)[:, None]
    np.testing.assert_allclose(
        metrics["policy/entropy"], np.asarray(entropy)[of_policy].mean(), rtol=1e-5
    )
    assert metrics["policy/tokens"] == of_policy.sum()


def test_first_column_saves_work_without_changing_anything():
    batch = random_batch()
    a, metrics_a = shared()(new_state(), batch)
    b, metrics_b = build(first_column=2)(new_state(), batch)
    assert_trees_close(a.params, b.params, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics_a["policy/loss"], metrics_b["policy/loss"], rtol=1e-6)


@functools.cache
def three_updates_on_one_device():
    step, state = build(ADAMW, microbatch_rows=8), new_state(ADAMW)
    for seed in range(3):
        state, metrics = step(state, random_batch(rows=24, seed=seed, live=21))
    return host(state.params), host(metrics)


@pytest.mark.parametrize("split_params", [False, True])
def test_eight_devices_equal_one(split_params):
    devices = jax.devices("cpu")
    if len(devices) < 8:
        pytest.skip("needs 8 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    want_params, want_metrics = three_updates_on_one_device()
    mesh = jax.sharding.Mesh(np.array(devices[:8]), ("data",))

    def over(*axes):
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))

    state_sharding = jax.tree.map(lambda _: over(), new_state(ADAMW))
    if split_params:
        of_params = {"embed": over(None, "data"), "mix": over("data"), "head": over(None, "data")}
        state_sharding = state_sharding._replace(params=of_params)
    eight = build(
        ADAMW,
        microbatch_rows=8,
        row_sharding=over("data"),
        state_sharding=state_sharding,
        batch_sharding=over("data"),
    )
    spread = jax.device_put(new_state(ADAMW), state_sharding)
    batches = [random_batch(rows=24, seed=seed, live=21) for seed in range(3)]
    batches = jax.device_put(batches, over("data"))
    # Ahead of time, to read the program that runs; it refuses inputs of another sharding than the first.
    compiled = eight.jitted.lower(spread, batches[0], None, True).compile()
    for batch in batches:
        spread, got, _ = compiled(spread, batch, None, True)
    assert_trees_close(spread.params, want_params, atol=1e-5)
    assert_trees_close(got, want_metrics, rtol=1e-4, atol=1e-5)
    assert eight.num_compiles == 1
    assert spread.params["mix"].sharding == state_sharding.params["mix"]
    if not split_params:
        # Each device holds the hidden states of one row of a microbatch, none those of all eight.
        hlo = compiled.as_text()
        assert f"f32[1,6,{WIDTH}]" in hlo and f"f32[8,6,{WIDTH}]" not in hlo


def test_schedules():
    # Warm-up over 4 updates to 1, then over the 8 that are left: constant 1, cosine (1 + cos pi x) / 2, linear 1 - x.
    want = {
        "constant": [0.25, 0.5, 0.75, 1, 1, 1, 1],
        "cosine": [0.25, 0.5, 0.75, 1, 1, 0.5, 0],
        "linear": [0.25, 0.5, 0.75, 1, 1, 0.5, 0],
    }
    for name, values in want.items():
        schedule = update.make_schedule(
            optim_config(schedule=name, learning_rate=1.0, warmup_updates=4), 12
        )
        np.testing.assert_allclose([schedule(n) for n in (0, 1, 2, 3, 4, 8, 12)], values, atol=1e-6)
    # A quarter of the way down: (1 + cos(pi / 4)) / 2 = 0.853553 against 0.75.
    for name, value in (("cosine", 0.853553), ("linear", 0.75)):
        schedule = update.make_schedule(
            optim_config(schedule=name, learning_rate=2.0, warmup_updates=4), 12
        )
        np.testing.assert_allclose(schedule(6), 2 * value, rtol=1e-5)
    with pytest.raises(
        ValueError, match="optim.schedule = 'step': must be one of constant, cosine, linear"
    ):
        update.make_optimizer(optim_config(schedule="step"), 1)


def test_gradient_clip_is_by_global_norm():
    # Norm of (3, 4) is 5; clipped to 1 it is (0.6, 0.8). eps far above it makes Adam's move g / eps times the rate.
    gradient, params = jnp.array([3.0, 4.0]), jnp.zeros(2)
    moves = {}
    for clip in (1.0, 0.0):
        optimizer = update.make_optimizer(
            optim_config(learning_rate=1.0, eps=1e6, grad_clip=clip), 1
        )
        moves[clip], _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(moves[1.0], [-0.6e-6, -0.8e-6], rtol=1e-4)
    np.testing.assert_allclose(moves[0.0], [-3e-6, -4e-6], rtol=1e-4)


def test_bfloat16_parameters_keep_their_dtype():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), init_params())
    state, metrics = shared()(new_state(params=params), random_batch())
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(state.params))
    assert metrics["policy/nonfinite"] == 0 and metrics["policy/update_norm"] > 0


def test_gradients_of_bfloat16_parameters_are_added_in_float32():
    # 400 microbatches with gradient 1 each; bfloat16 would stop at 256.
    def loss(params, frozen, batch, coefficients):
        total = jnp.sum(params * batch)
        return total.astype(jnp.float32), ({}, batch.astype(jnp.float32))

    ones = jnp.ones((400, 1), jnp.bfloat16)
    params = jnp.ones(1, jnp.bfloat16)
    _, _, gradient, _ = update._accumulate(loss, params, None, (ones, ones), 400, None)
    assert gradient.dtype == jnp.float32 and gradient[0] == 400


def test_another_loss_may_be_handed_in():
    # Cross-entropy on demonstrations: the loss is minus the mean log-prob, whatever the old log-probs.
    batch = random_batch()
    batch = batch._replace(
        advantages=jnp.ones_like(batch.advantages), old_logprobs=jnp.full((8, 6), jnp.nan)
    )
    params = init_params()
    hidden = hidden_fn(params, batch.tokens, batch.token_mask)
    logprobs, _ = losses.completion_logprobs(hidden, head_fn(params), batch.tokens)
    weights = losses.row_coefficients(batch, aggregation="seq_mean_token_mean", max_completion=4)
    _, metrics = build(loss_fn=losses.imitation_loss)(new_state(), batch)
    np.testing.assert_allclose(metrics["policy/loss"], -jnp.sum(weights * logprobs), rtol=1e-5)
    assert metrics["policy/nonfinite"] == 0 and metrics["policy/update_norm"] > 0


def test_bad_rows_are_refused():
    with pytest.raises(
        ValueError, match="10 rows does not split into microbatches of 4: pad it .* to 12"
    ):
        build(microbatch_rows=4)(new_state(), random_batch(rows=10))
    with pytest.raises(ValueError, match="microbatch_rows = 0: must be >= 1"):
        build(microbatch_rows=0)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]).reshape(-1), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    with pytest.raises(
        ValueError, match="microbatch_rows = 3: must be a multiple of the 2 devices"
    ):
        build(microbatch_rows=3, row_sharding=rows)
