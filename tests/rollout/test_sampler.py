"""The sampler against the model itself: same log-probs, same tokens, no step too many."""

from __future__ import annotations

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason import sharding
from jaxrl_reason.models import transformer
from jaxrl_reason.rollout import sampler

CONFIG = transformer.ModelConfig(
    vocab_size=16, num_layers=2, d_model=16, num_heads=4, num_kv_heads=2, head_dim=4, d_ff=32
)
PAD, EOS, NEVER = 0, 1, 99  # NEVER: an id that the model cannot make
N, G, P, C = 4, 2, 5, 6

PROMPTS = np.asarray(
    [[0, 0, 3, 4, 5], [2, 9, 8, 7, 6], [0, 0, 0, 0, 7], [0, 3, 3, 11, 2]], np.int32
)
MASK = PROMPTS > 0
FULL = np.full(N, C, np.int32)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def params():
    """Random weights, scaled up so that distributions are far from uniform."""
    tree = jax.device_get(transformer.init_params(CONFIG, jax.random.key(0)))
    return jax.tree.map(lambda x: np.asarray(1.5 * x, np.float32), tree)


@functools.lru_cache
def make(config=CONFIG, **changes):
    settings = {"num_samples": G, "max_new_tokens": C, "eos_id": EOS, "pad_id": PAD}
    return sampler.make_sampler(config, **{**settings, **changes})


@functools.lru_cache
def scorer(config=CONFIG):
    return sampler.make_scorer(config, vocab_chunk=7)


@functools.lru_cache
def generate(config=CONFIG, num_samples=G, eos_id=EOS, greedy=False):
    """What `make_sampler` compiles, with the number of tokens per row that were read one at a time."""
    settings = sampler._Settings(num_samples, C, (eos_id,), PAD, greedy, top_k=0, top_p=1.0)
    return jax.jit(
        functools.partial(sampler._generate, config=config, settings=settings, mesh=None)
    )


def sample(params, prompts=PROMPTS, budget=FULL, temperature=1.0, key=KEY, **changes):
    run = make(**changes)
    return jax.device_get(run(params, prompts, prompts > 0, budget, temperature, key))


def sample_and_count(params, prompts=PROMPTS, budget=FULL, **changes):
    run = generate(**changes)
    return jax.device_get(run(params, prompts, prompts > 0, budget, jnp.float32(1.0), KEY))


def ending(params, table: dict[int, int], strength: float = 60.0):
    """Weights under which the token after `a` is `table[a]`, whatever came before: layers add nothing."""
    params = {**params, "layers": jax.tree.map(lambda x: x[:1].copy(), params["layers"])}
    for block, name in (("attention", "wo"), ("mlp", "down")):
        params["layers"][block][name][:] = 0.0
    # Untied: embedding row a is the unit vector a, head row b answers to all a with table[a] = b.
    eye = np.eye(16, dtype=np.float32)
    head = np.zeros((16, 16), np.float32)
    for a, b in table.items():
        head[b, a] = strength / 4  # the last norm makes a unit vector 4 = sqrt(16) long
    unit = {"scale": np.ones(16, np.float32)}
    return {**params, "embedding": eye, "head": head, "final_norm": unit}


UNTIED = dataclasses.replace(CONFIG, tied=False, num_layers=1)


@functools.partial(jax.jit, static_argnums=0)
def full_logits(config, params, tokens, token_mask):
    hidden, _ = transformer.forward(config, params, tokens, token_mask)
    return transformer.logits(params, hidden)


def teacher_forced(params, rollout, temperature=1.0) -> np.ndarray:
    """Log-probs of the tokens from full logits, in float64, without the scorer."""
    logits = full_logits(CONFIG, params, rollout.tokens, rollout.token_mask)
    logits = np.asarray(logits, np.float64)[:, :-1] / temperature
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(logprobs, rollout.tokens[:, 1:, None], axis=-1)[..., 0]
    return np.pad(chosen, ((0, 0), (1, 0)))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_log_probs_are_the_teacher_forced_ones(params, temperature: float):
    rollout = sample(params, temperature=temperature)
    chosen = rollout.completion_mask
    assert chosen.sum() > 20
    expected = teacher_forced(params, rollout, temperature)
    np.testing.assert_allclose(rollout.behavior_logprobs[chosen], expected[chosen], atol=1e-5)
    assert (rollout.behavior_logprobs[~chosen] == 0).all()
    scored = scorer()(params, rollout.tokens, rollout.token_mask, temperature)
    np.testing.assert_allclose(np.asarray(scored)[chosen], expected[chosen], atol=1e-5)


def test_the_layout_of_a_rollout(params):
    rollout = sample(params)
    assert rollout.tokens.shape == (N * G, P + C)
    assert rollout.group_ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    np.testing.assert_array_equal(rollout.tokens[:, :P], np.repeat(PROMPTS, G, axis=0))
    np.testing.assert_array_equal(rollout.token_mask[:, :P], np.repeat(MASK, G, axis=0))
    assert not rollout.completion_mask[:, :P].any()
    np.testing.assert_array_equal(rollout.completion_mask[:, P:], rollout.token_mask[:, P:])
    assert (rollout.tokens[~rollout.token_mask] == PAD).all()
    for row in range(N * G):
        tokens = rollout.tokens[row][rollout.completion_mask[row]]
        assert (rollout.completion_mask[row, P : P + len(tokens)]).all()  # no hole
        assert EOS not in tokens[:-1]
        assert rollout.truncated[row] == (tokens[-1] != EOS)
        assert len(tokens) == C or tokens[-1] == EOS


def greedy(params, **changes):
    return sample_and_count(params, num_samples=1, eos_id=NEVER, greedy=True, **changes)[0]


def test_greedy_with_the_cache_equals_greedy_without(params):
    rollout = greedy(params)
    tokens = np.concatenate([PROMPTS, np.full((N, C), PAD, np.int32)], axis=1)
    mask = np.concatenate([MASK, np.zeros((N, C), bool)], axis=1)
    for column in range(P, P + C):
        logits = np.asarray(full_logits(CONFIG, params, tokens, mask))
        tokens[:, column], mask[:, column] = logits[:, column - 1].argmax(-1), True
    np.testing.assert_array_equal(rollout.tokens, tokens)
    np.testing.assert_array_equal(rollout.token_mask, mask)
    # Log-probs of greedy tokens are those at temperature 1.
    chosen = rollout.completion_mask
    np.testing.assert_allclose(
        rollout.behavior_logprobs[chosen], teacher_forced(params, rollout)[chosen], atol=1e-5
    )


def test_temperature_zero_is_greedy(params):
    cold, best = sample(params, temperature=0.0), greedy(params)
    chosen = cold.completion_mask
    expected = np.repeat(best.tokens, G, axis=0)
    np.testing.assert_array_equal(cold.tokens[chosen], expected[chosen])
    np.testing.assert_allclose(
        cold.behavior_logprobs[chosen],
        np.repeat(best.behavior_logprobs, G, axis=0)[chosen],
        atol=1e-5,
    )


@pytest.mark.parametrize("settings", [{"top_k": 2, "top_p": 1.0}, {"top_k": 0, "top_p": 0.6}])
def test_log_probs_are_those_of_the_cut_distribution(settings):
    # Probabilities .1 .4 .2 .3: two tokens stay either way, and are 4/7 and 3/7.
    logits = jnp.log(jnp.asarray([[0.1, 0.4, 0.2, 0.3]] * 200))
    fixed = sampler._Settings(1, 1, (NEVER,), PAD, False, **settings)
    tokens, logprobs = jax.jit(functools.partial(sampler._draw, settings=fixed))(
        logits, jnp.int32(0), temperature=jnp.float32(1.0), key=KEY
    )
    assert set(np.asarray(tokens).tolist()) == {1, 3}
    expected = np.log(np.where(np.asarray(tokens) == 1, 4 / 7, 3 / 7))
    np.testing.assert_allclose(logprobs, expected, atol=1e-6)


def test_eos_first_in_the_middle_and_never(params):
    # After 5: EOS at once. After 6: 8, then EOS. After 7: 2, 3, 2, 3 ... for ever. After 2: 3, 2, 3 ...
    fixed = ending(params, {5: EOS, 6: 8, 8: EOS, 7: 2, 2: 3, 3: 2})
    rollout = sample(fixed, config=UNTIED, num_samples=1)
    np.testing.assert_array_equal(
        rollout.tokens[:, P:],
        [[EOS, 0, 0, 0, 0, 0], [8, EOS, 0, 0, 0, 0], [2, 3, 2, 3, 2, 3], [3, 2, 3, 2, 3, 2]],
    )
    assert rollout.completion_mask[:, P:].sum(axis=1).tolist() == [1, 2, 6, 6]
    assert rollout.truncated.tolist() == [False, False, True, True]


def test_budgets_end_rows_and_zero_is_dead_from_the_start(params):
    budget = np.asarray([0, 2, 6, 50], np.int32)  # 50 is more than there are columns
    rollout, _ = sample_and_count(params, budget=budget, eos_id=NEVER)
    lengths = rollout.completion_mask.sum(axis=1)
    assert lengths.tolist() == [0, 0, 2, 2, 6, 6, 6, 6]
    assert rollout.truncated.all()
    free, _ = sample_and_count(params, eos_id=NEVER)
    for row, length in enumerate(lengths):
        columns = slice(0, P + length)
        np.testing.assert_array_equal(rollout.tokens[row, columns], free.tokens[row, columns])


def test_eos_on_the_last_token_of_the_budget_is_not_truncated(params):
    fixed = ending(params, {5: 8, 8: EOS, 6: 8, 7: 2, 2: 3, 3: 2})
    budget = np.full(N, 2, np.int32)
    rollout = sample(fixed, budget=budget, config=UNTIED, num_samples=1)
    assert rollout.truncated.tolist() == [False, False, True, True]
    assert rollout.tokens[:, P : P + 2].tolist() == [[8, EOS], [8, EOS], [2, 3], [3, 2]]


def test_the_loop_ends_with_the_last_live_row(params):
    def steps(*budget: int) -> int:
        return sample_and_count(params, budget=np.asarray(budget, np.int32), eos_id=NEVER)[1]

    assert steps(C, C, C, C) == C - 1  # the last token is read by nobody
    assert steps(0, 0, 0, 0) == 0
    assert steps(0, 0, 3, 0) == 2
    # EOS ends the loop as well: with these weights after one token, but after two in row 1.
    table = {5: EOS, 6: 8, 8: EOS, 7: EOS, 2: EOS}
    assert sample_and_count(ending(params, table), config=UNTIED, num_samples=1)[1] == 1


def test_draws_depend_on_the_key_and_the_column_alone(params):
    one, same, other = (sample(params, key=jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(one.tokens, same.tokens)
    assert (one.tokens != other.tokens).any()
    assert (one.tokens[::2] != one.tokens[1::2]).any()  # samples of one prompt differ
    # Neither more padding to the left nor fewer rows beside change a draw.
    wide = np.concatenate([np.zeros((2, 3), np.int32), PROMPTS[:2]], axis=1)
    few = sample(params, prompts=wide, budget=FULL[:2], key=jax.random.key(1))
    np.testing.assert_array_equal(few.tokens[:, 3:], one.tokens[: 2 * G])
    # Other shapes, other orders of the float32 sums in products and in attention: some units in the last place.
    np.testing.assert_allclose(
        few.behavior_logprobs[:, 3:], one.behavior_logprobs[: 2 * G], atol=1e-5
    )


def test_what_stands_on_padding_does_not_matter(params):
    dirty = np.where(MASK, PROMPTS, 13)
    run = make()
    rollout = jax.device_get(run(params, dirty, MASK, FULL, 1.0, KEY))
    clean = sample(params)
    for one, two in zip(rollout, clean, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_row_of_padding_alone_is_harmless(params):
    prompts, budget = PROMPTS.copy(), FULL.copy()
    prompts[1], budget[1] = 0, 0
    rollout, clean = sample(params, prompts=prompts, budget=budget), sample(params)
    rows = [0, 1, 4, 5, 6, 7]
    np.testing.assert_array_equal(rollout.tokens[rows], clean.tokens[rows])
    assert all(np.isfinite(x).all() for x in rollout)


def test_going_on_from_a_prefix_equals_the_whole(params):
    whole, given = greedy(params), 2
    # Prompt and two tokens of the completion as the prompt, and what is left as the budget.
    prompts = np.concatenate([PROMPTS, whole.tokens[:, P : P + given]], axis=1)
    prompts_mask = np.concatenate([MASK, np.ones((N, given), bool)], axis=1)
    run = generate(num_samples=1, eos_id=NEVER, greedy=True)
    rest, _ = jax.device_get(
        run(params, prompts, prompts_mask, FULL - given, jnp.float32(1.0), KEY)
    )
    np.testing.assert_array_equal(rest.tokens[:, : P + C], whole.tokens)
    columns = slice(P + given, P + C)
    for expected in (whole.behavior_logprobs, teacher_forced(params, whole)):
        np.testing.assert_allclose(
            rest.behavior_logprobs[:, columns], expected[:, columns], atol=1e-5
        )


def test_scores_are_zero_where_nothing_comes_before(params):
    rollout = sample(params)
    scores = np.asarray(scorer()(params, rollout.tokens, rollout.token_mask))
    first = rollout.token_mask.argmax(axis=1)
    assert (scores[np.arange(N * G), first] == 0).all()
    assert (scores[~rollout.token_mask] == 0).all()
    inside = rollout.token_mask & (np.arange(P + C)[None] > first[:, None])
    np.testing.assert_allclose(scores[inside], teacher_forced(params, rollout)[inside], atol=1e-5)


def test_compiled_once_whatever_the_temperature_and_budget(params, monkeypatch):
    shapes, real = [], transformer.forward

    def counted(config, params, tokens, *rest, **options):
        shapes.append(tokens.shape)
        return real(config, params, tokens, *rest, **options)

    monkeypatch.setattr(transformer, "forward", counted)
    fixed = ending(params, {5: EOS, 6: EOS, 7: EOS, 2: EOS})
    run = sampler.make_sampler(UNTIED, num_samples=3, max_new_tokens=2, eos_id=EOS, pad_id=PAD)
    for seed, temperature in enumerate((1.0, 0.5, 0)):
        run(fixed, PROMPTS, MASK, FULL - seed, temperature, jax.random.key(seed))
    # Prompts are read once, not once per sample; the loop's body is traced at most twice by JAX itself.
    assert shapes[0] == (N, P)
    assert set(shapes[1:]) == {(N * 3, 1)} and len(shapes) <= 3


def test_bfloat16_samples_and_stays_near_its_scores(params):
    config = dataclasses.replace(CONFIG, dtype="bfloat16", num_layers=1)
    params = {**params, "layers": jax.tree.map(lambda x: x[:1], params["layers"])}
    rollout = sample(params, config=config)
    assert rollout.behavior_logprobs.dtype == np.float32
    scored = np.asarray(scorer(config)(params, rollout.tokens, rollout.token_mask))
    chosen = rollout.completion_mask
    # 8 bits of mantissa on logits of about 5, in differently ordered sums.
    assert np.abs(scored - rollout.behavior_logprobs)[chosen].mean() < 0.1


def test_devices_change_nothing(params):
    mesh = sharding.make_mesh(types.SimpleNamespace(data=2, fsdp=2, tensor=2))
    shardings = sharding.param_shardings(mesh, transformer.logical_axes(CONFIG), params)
    placed = sharding.to_global(params, shardings)
    rows = sharding.batch_sharding(mesh)
    run = sampler.make_sampler(
        CONFIG, num_samples=G, max_new_tokens=C, eos_id=EOS, pad_id=PAD, mesh=mesh
    )
    arguments = sharding.to_global((PROMPTS, MASK, FULL), rows)
    rollout = run(placed, *arguments, 1.0, KEY)
    assert rollout.tokens.sharding.is_equivalent_to(rows, 2)
    expected = sample(params)
    np.testing.assert_array_equal(sharding.to_host(rollout.tokens), expected.tokens)
    np.testing.assert_array_equal(sharding.to_host(rollout.truncated), expected.truncated)
    np.testing.assert_allclose(rollout.behavior_logprobs, expected.behavior_logprobs, atol=1e-5)
    score = sampler.make_scorer(CONFIG, mesh=mesh, vocab_chunk=7)
    scored = score(placed, rollout.tokens, rollout.token_mask)
    np.testing.assert_allclose(
        scored, scorer()(params, expected.tokens, expected.token_mask), atol=1e-5
    )


def test_rows_that_the_mesh_does_not_divide_are_an_error(params):
    mesh = sharding.make_mesh(types.SimpleNamespace(data=1, fsdp=8, tensor=1))
    run = sampler.make_sampler(
        CONFIG, num_samples=G, max_new_tokens=C, eos_id=EOS, pad_id=PAD, mesh=mesh
    )
    with pytest.raises(ValueError, match="4 rows over 8 row shards.*rows of budget 0"):
        run(params, PROMPTS, MASK, FULL, 1.0, KEY)


def test_sizes_below_one_are_named():
    for name in ("num_samples", "max_new_tokens"):
        with pytest.raises(ValueError, match=f"{name} = 0: must be >= 1"):
            make(**{name: 0})
