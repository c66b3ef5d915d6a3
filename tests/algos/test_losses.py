import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.algos import losses
from jaxrl_reason.types import POLICY_STREAM, REPAIR_STREAM, TrainBatch, take_rows
from tests.algos.batches import VOCAB, random_batch

AGGREGATIONS = sorted(losses.AGGREGATIONS)
RATIOS = sorted(losses.RATIOS)
EVERY_LOSS = [(a, r) for a in AGGREGATIONS for r in RATIOS]
# Every aggregation and every ratio once.
SOME_LOSSES = list(zip(AGGREGATIONS, ("sequence", "sequence", "token"), strict=True))
CLIP = dict(clip_low=0.2, clip_high=0.28)
EXTRAS = dict(dual_clip=1.5, kl_coef=0.1, kl_estimator="k3", entropy_coef=0.01)


def batch_of(
    mask, advantages, old=None, ref=None, weight=None, stream=None, clip_scale=None
) -> TrainBatch:
    mask = jnp.asarray(mask, bool)
    rows = mask.shape[0]
    return TrainBatch(
        tokens=jnp.zeros(mask.shape, jnp.int32),
        token_mask=jnp.ones(mask.shape, bool),
        loss_mask=mask,
        advantages=jnp.broadcast_to(jnp.asarray(advantages, jnp.float32), mask.shape),
        old_logprobs=jnp.zeros(mask.shape) if old is None else jnp.asarray(old, jnp.float32),
        ref_logprobs=None if ref is None else jnp.asarray(ref, jnp.float32),
        row_weight=jnp.ones(rows) if weight is None else jnp.asarray(weight, jnp.float32),
        stream=jnp.zeros(rows, jnp.int32) if stream is None else jnp.asarray(stream, jnp.int32),
        clip_scale=jnp.ones(rows) if clip_scale is None else jnp.asarray(clip_scale, jnp.float32),
    )


# Jitted, since the first eager call of every operation on a new shape would compile it alone.
@functools.partial(
    jax.jit,
    static_argnames="aggregation ratio clip_low clip_high dual_clip kl_coef kl_estimator entropy_coef".split(),
)
def loss_and_metrics(
    logprobs, batch, aggregation="seq_mean_token_mean", ratio="token", entropy=None, **kwargs
):
    coefficients = losses.row_coefficients(batch, aggregation=aggregation, max_completion=4)
    entropy = jnp.zeros_like(logprobs) if entropy is None else entropy
    loss, sums = losses.policy_loss(
        logprobs, entropy, batch, coefficients, ratio=ratio, **(CLIP | kwargs)
    )
    return loss, losses.mean_metrics(sums)


row_coefficients = jax.jit(
    losses.row_coefficients, static_argnames=("aggregation", "max_completion")
)


@functools.partial(jax.jit, static_argnames=("aggregation", "ratio", "extras"))
def of_logits(logits, batch, aggregation, ratio, extras=True):
    """(loss, gradient with respect to logits) where logits[:, t] gives the distribution of tokens[:, t]."""

    def loss(logits):
        logp = jax.nn.log_softmax(logits)
        logprobs = jnp.take_along_axis(logp, batch.tokens[..., None], axis=-1)[..., 0]
        entropy = -jnp.sum(jnp.exp(logp) * logp, axis=-1)
        kwargs = EXTRAS if extras else {}
        return loss_and_metrics(logprobs, batch, aggregation, ratio, entropy, **kwargs)[0]

    return jax.value_and_grad(loss)(logits)


def random_logits(batch, seed=0):
    shape = (*batch.tokens.shape, VOCAB)
    return jnp.asarray(0.5 * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


# Two rows, ratios [3/2, 1/2, 1] with A = +1 and [3/2, 1/2] with A = -1; clip to [0.8, 1.28].
# A = +1: min(rho, 1.28) = 1.28, 0.5, 1. Sum 2.78.  A = -1: -max(rho, 0.8) = -1.5, -0.8. Sum -2.3.
RATIO = jnp.array([[1.5, 0.5, 1.0], [1.5, 0.5, 7.0]])
HAND = batch_of([[1, 1, 1], [1, 1, 0]], [[1.0], [-1.0]])


@pytest.mark.parametrize(
    ("aggregation", "want"),
    [
        ("seq_mean_token_mean", -(2.78 / 3 - 2.3 / 2) / 2),
        ("token_mean", -(2.78 - 2.3) / 5),
        ("seq_sum_over_const", -(2.78 - 2.3) / (2 * 4)),
    ],
)
def test_hand_values_of_the_token_ratio(aggregation, want):
    loss, metrics = loss_and_metrics(jnp.log(RATIO), HAND, aggregation)
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    # One of five tokens is cut above, one below; mean ratio (1.5 + .5 + 1 + 1.5 + .5) / 5.
    # KL: rho - 1 - log rho is .094535 (twice), .193147 (twice), 0: sum .575364.
    want = {
        "clip_frac_high": 0.2,
        "clip_frac_low": 0.2,
        "ratio_mean": 1,
        "ratio_max": 1.5,
        "kl": 0.115073,
    }
    for name, value in (want | {"tokens": 5}).items():
        np.testing.assert_allclose(metrics[f"policy/{name}"], value, rtol=1e-5, err_msg=name)


def test_unclipped_and_dual_clipped_hand_values():
    # Bounds 0.1 and 1.9 cut nothing: (3 / 3 - 2 / 2) / 2 = 0.
    loss, metrics = loss_and_metrics(jnp.log(RATIO), HAND, clip_low=0.9, clip_high=0.9)
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    assert metrics["policy/clip_frac_high"] == 0
    # Dual clip 1.2 turns -1.5 into -1.2: row 1 sums to -2.
    loss, _ = loss_and_metrics(jnp.log(RATIO), HAND, dual_clip=1.2)
    np.testing.assert_allclose(loss, -(2.78 / 3 - 2.0 / 2) / 2, rtol=1e-5)


def test_hand_values_of_the_sequence_ratio():
    # Row 0: (1.5 x 0.5 x 1)^(1/3) = 0.908560; row 1: (1.5 x 0.5)^(1/2) = 0.866025, kept at 0.95 by clip_low 0.05.
    tight = dict(ratio="sequence", clip_low=0.05, clip_high=0.05)
    loss, metrics = loss_and_metrics(jnp.log(RATIO), HAND, **tight)
    np.testing.assert_allclose(loss, -(0.908560 - 0.95) / 2, rtol=1e-5)
    # Clip fractions count tokens: the row that is cut has 2 of 5.
    np.testing.assert_allclose(metrics["policy/clip_frac_low"], 0.4)
    # clip_scale 4 makes the width of that row 0.2: nothing is cut.
    wide = HAND._replace(clip_scale=jnp.array([1.0, 4.0]))
    loss, metrics = loss_and_metrics(jnp.log(RATIO), wide, **tight)
    np.testing.assert_allclose(loss, -(0.908560 - 0.866025) / 2, rtol=1e-5)
    assert metrics["policy/clip_frac_low"] == 0


def test_clip_scale_widens_the_upper_bound():
    # Bound 1 + 2 x 0.28 = 1.56 lets 1.5 pass in row 0, whose sum becomes 3.
    loss, _ = loss_and_metrics(jnp.log(RATIO), HAND._replace(clip_scale=jnp.array([2.0, 1.0])))
    np.testing.assert_allclose(loss, -(3 / 3 - 2.3 / 2) / 2, rtol=1e-5)


def test_gated_ratio_of_the_iop_example():
    # exp((-.02 + .03) / 2) = exp(.005); an advantage of 1 makes it minus the loss.
    log_ratio = jnp.array([[0.01, -0.02, 0.03, 0.0]])
    gate = batch_of([[0, 1, 1, 0]], [[1.0]])
    loss, metrics = loss_and_metrics(log_ratio, gate, ratio="sequence")
    np.testing.assert_allclose(-loss, 1.0050125, rtol=1e-6)
    np.testing.assert_allclose(metrics["policy/ratio_mean"], 1.0050125, rtol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "want"), [("k1", 0.693147), ("k2", 0.240227), ("k3", 0.193147)]
)
def test_kl_hand_values(estimator, want):
    # d = log pi - log pi_ref = log 2: d, d^2 / 2, 1/2 - 1 + log 2. A = 0 leaves the KL alone, times beta = 3.
    batch = batch_of([[1, 0]], [[0.0]], ref=[[-np.log(2), np.nan]])
    loss, _ = loss_and_metrics(jnp.zeros((1, 2)), batch, kl_coef=3.0, kl_estimator=estimator)
    np.testing.assert_allclose(loss, 3 * want, rtol=1e-5)
    # At pi = pi_ref there is none.
    loss, _ = loss_and_metrics(
        jnp.zeros((1, 2)), batch._replace(ref_logprobs=jnp.zeros((1, 2))), kl_coef=3.0
    )
    assert loss == 0
    # Without a reference nothing is computed.
    batch = batch._replace(ref_logprobs=None)
    assert loss_and_metrics(jnp.zeros((1, 2)), batch, kl_coef=3.0)[0] == 0


def test_entropy_bonus_hand_value():
    # Mean entropy of the two unmasked tokens, (1 + 2) / 2, times 0.1, lowers the loss.
    batch = batch_of([[1, 1, 0]], [[0.0]])
    entropy = jnp.array([[1.0, 2.0, jnp.nan]])
    loss, metrics = loss_and_metrics(jnp.zeros((1, 3)), batch, entropy=entropy, entropy_coef=0.1)
    np.testing.assert_allclose(loss, -0.15, rtol=1e-6)
    np.testing.assert_allclose(metrics["policy/entropy"], 1.5)


def test_row_coefficients_per_stream():
    # Policy: rows 0 (2 tokens), 1 (1), 4 (no token, so not live), 5 (weight 0). Repair: rows 2 (3), 3 (1), weight 1/2.
    batch = batch_of(
        [[1, 1, 0], [0, 1, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]],
        [[1.0]] * 6,
        weight=[1, 1, 0.5, 0.5, 1, 0],
        stream=[
            POLICY_STREAM,
            POLICY_STREAM,
            REPAIR_STREAM,
            REPAIR_STREAM,
            POLICY_STREAM,
            POLICY_STREAM,
        ],
    )
    want = {
        # 1 / (2 rows x tokens of the row), times the weight.
        "seq_mean_token_mean": [1 / 4, 1 / 2, 0.5 / 6, 0.5 / 2, 0, 0],
        # 1 / 3 policy tokens, 1 / 4 repair tokens.
        "token_mean": [1 / 3, 1 / 3, 0.5 / 4, 0.5 / 4, 0, 0],
        # 1 / (2 rows x 4).
        "seq_sum_over_const": [1 / 8, 1 / 8, 0.5 / 8, 0.5 / 8, 0, 0],
    }
    for aggregation, rows in want.items():
        got = row_coefficients(batch, aggregation=aggregation, max_completion=4)
        np.testing.assert_allclose(
            got, np.asarray(rows)[:, None] * np.asarray(batch.loss_mask), rtol=1e-6
        )
    # The weight of the repair stream is its share, with one row as with two.
    fewer = batch._replace(row_weight=batch.row_weight.at[3].set(0))
    for aggregation in ("seq_mean_token_mean", "token_mean"):
        for b in (batch, fewer):
            got = row_coefficients(b, aggregation=aggregation, max_completion=4)
            np.testing.assert_allclose(got[b.stream == REPAIR_STREAM].sum(), 0.5, rtol=1e-6)
            np.testing.assert_allclose(got[b.stream == POLICY_STREAM].sum(), 1, rtol=1e-6)


@pytest.mark.parametrize(("aggregation", "ratio"), EVERY_LOSS)
def test_properties(aggregation, ratio):
    """Gate, contents of padding, permuted rows: one compiled function each."""
    batch = random_batch(reference=True, live=6)
    logits = random_logits(batch)
    loss, grad = of_logits(logits, batch, aggregation, ratio)
    mask = np.asarray(batch.loss_mask) & (np.asarray(batch.row_weight) != 0)[:, None]
    assert np.isfinite(loss) and loss != 0
    # Un-gated: exactly 0.
    np.testing.assert_array_equal(grad[~mask], np.zeros_like(grad[~mask]))
    assert (np.abs(grad[mask]).max(axis=-1) > 0).all()

    # What padding rows and masked columns hold changes nothing, not by one bit.
    noise = np.random.default_rng(1).standard_normal(mask.shape).astype(np.float32)
    dirty = batch._replace(
        advantages=jnp.where(mask, batch.advantages, noise),
        old_logprobs=jnp.where(batch.loss_mask, batch.old_logprobs, jnp.nan),
        ref_logprobs=jnp.where(batch.loss_mask, batch.ref_logprobs, 89.0),
    )
    dirty_logits = jnp.where(mask[..., None], logits, 3 * logits)
    again, grad_again = of_logits(dirty_logits, dirty, aggregation, ratio)
    assert again == loss
    np.testing.assert_array_equal(grad_again, grad)

    order = np.random.default_rng(2).permutation(8)
    permuted, permuted_grad = of_logits(logits[order], take_rows(batch, order), aggregation, ratio)
    np.testing.assert_allclose(permuted, loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(permuted_grad, grad[order], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("aggregation", "ratio"), SOME_LOSSES)
def test_more_padding_columns_and_rows_change_nothing(aggregation, ratio):
    batch = random_batch(reference=True, live=6)
    logits = random_logits(batch)
    loss, grad = of_logits(logits, batch, aggregation, ratio)

    def widen(x):
        value = jnp.nan if x.dtype == jnp.float32 and x.ndim == 2 else 0
        return np.pad(x, [(0, 2), (0, 3)][: x.ndim], constant_values=value)

    wide_batch = jax.tree.map(lambda x: jnp.asarray(widen(x)), batch)
    wide_logits = jnp.asarray(np.pad(logits, [(0, 2), (0, 3), (0, 0)]))
    wide, wide_grad = of_logits(wide_logits, wide_batch, aggregation, ratio)
    np.testing.assert_allclose(wide, loss, rtol=1e-6)
    np.testing.assert_allclose(wide_grad[:8, :6], grad, rtol=1e-6, atol=1e-9)
    assert not np.asarray(wide_grad)[8:].any() and not np.asarray(wide_grad)[:, 6:].any()


@pytest.mark.parametrize("ratio", RATIOS)
def test_jit_equals_eager(ratio):
    jitted = loss_and_metrics(jnp.log(RATIO), HAND, ratio=ratio)
    with jax.disable_jit():
        eager = loss_and_metrics(jnp.log(RATIO), HAND, ratio=ratio)
    for a, b in zip(jax.tree.leaves(jitted), jax.tree.leaves(eager), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(("aggregation", "ratio"), SOME_LOSSES)
def test_on_policy_the_loss_is_the_mean_advantage_and_its_gradient_reinforce(aggregation, ratio):
    batch = random_batch()
    logits = random_logits(batch)
    logp = jax.nn.log_softmax(logits)
    batch = batch._replace(
        old_logprobs=jnp.take_along_axis(logp, batch.tokens[..., None], axis=-1)[..., 0]
    )
    weights = row_coefficients(batch, aggregation=aggregation, max_completion=4)
    loss, grad = of_logits(logits, batch, aggregation, ratio, extras=False)
    np.testing.assert_allclose(loss, -jnp.sum(weights * batch.advantages), rtol=1e-5, atol=1e-6)

    advantages = batch.advantages
    if ratio == "sequence":
        # One ratio multiplies the row: each gated token moves by the row's weighted advantage over its token count.
        mask = batch.loss_mask
        row = jnp.sum(weights * advantages, axis=1) / jnp.sum(mask, axis=1)
        pull = jnp.where(mask, row[:, None], 0)
    else:
        pull = weights * advantages
    # d -sum pull log softmax(l)[token] / d l = -pull (onehot - softmax).
    want = -pull[..., None] * (jax.nn.one_hot(batch.tokens, VOCAB) - jnp.exp(logp))
    np.testing.assert_allclose(grad, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ratio", RATIOS)
def test_extreme_and_undefined_log_ratios(ratio):
    # Row 0: e^89 overflows float32. Row 1: NaN and 1e4 at masked positions. Row 2: wholly masked.
    logprobs = jnp.array([[89.0, -89.0, 0.0], [0.1, jnp.nan, 1e4], [jnp.nan, 89.0, -1e4]])
    batch = batch_of(
        [[1, 1, 0], [1, 0, 0], [0, 0, 0]], [[1.0], [-1.0], [1.0]], ref=jnp.zeros((3, 3))
    )
    grad_fn = jax.value_and_grad(
        lambda x: loss_and_metrics(x, batch, ratio=ratio, **EXTRAS), has_aux=True
    )
    (loss, metrics), grad = grad_fn(logprobs)
    assert np.isfinite(loss) and np.isfinite(grad).all()
    assert all(np.isfinite(x) for x in metrics.values())
    assert (np.asarray(grad)[~np.asarray(batch.loss_mask)] == 0).all()
    for value in (89.0, -89.0):
        (loss, _), grad = grad_fn(jnp.full((3, 3), value))
        assert np.isfinite(loss) and np.isfinite(grad).all()


@pytest.mark.parametrize(("aggregation", "ratio"), EVERY_LOSS)
def test_nothing_to_train_gives_exactly_zero(aggregation, ratio):
    full = random_batch(reference=True)
    for batch in (
        full._replace(loss_mask=jnp.zeros_like(full.loss_mask)),
        full._replace(row_weight=jnp.zeros_like(full.row_weight)),
    ):
        loss, grad = of_logits(random_logits(batch), batch, aggregation, ratio)
        assert loss == 0
        np.testing.assert_array_equal(grad, np.zeros_like(grad))


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_batch_without_rows_has_loss_zero(ratio):
    empty = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[:0]), random_batch(reference=True))
    loss, metrics = loss_and_metrics(jnp.zeros(empty.tokens.shape), empty, ratio=ratio)
    assert loss == 0 and all(x == 0 for x in metrics.values())


def test_bfloat16_log_probs_are_reduced_in_float32():
    batch = random_batch(reference=True)
    logprobs = batch.old_logprobs.astype(jnp.bfloat16)
    half = batch._replace(old_logprobs=batch.old_logprobs + 0.1)
    loss, _ = loss_and_metrics(logprobs, half, entropy=-logprobs, **EXTRAS)
    exact, _ = loss_and_metrics(
        logprobs.astype(jnp.float32), half, entropy=-logprobs.astype(jnp.float32), **EXTRAS
    )
    assert loss.dtype == jnp.float32
    assert loss == exact


def test_slope_on_the_clip_bound_is_that_of_the_unclipped_side():
    # With both widths 0 a ratio of exactly 1 is on both bounds; `minimum` would pass part of the gradient.
    batch = batch_of([[1], [1]], [[1.0], [-1.0]])
    clip = dict(clip_low=0.0, clip_high=0.0)
    grad = jax.grad(lambda x: loss_and_metrics(x, batch, **clip)[0])(jnp.zeros((2, 1)))
    np.testing.assert_array_equal(grad, [[-0.5], [0.5]])


def test_metrics_add_up_exactly_over_parts_and_keep_streams_apart():
    batch = random_batch(rows=6)
    logprobs = batch.old_logprobs + 0.3 * jnp.sin(jnp.arange(36.0)).reshape(6, 6)
    coefficients = row_coefficients(batch, aggregation="token_mean", max_completion=4)

    of = jax.jit(functools.partial(losses.policy_loss, ratio="token", **CLIP))
    whole_loss, whole = of(logprobs, -logprobs, batch, coefficients)
    halves = [
        take_rows((logprobs, -logprobs, batch, coefficients), r) for r in (slice(0, 3), slice(3, 6))
    ]
    (loss_a, a), (loss_b, b) = (of(*half) for half in halves)
    np.testing.assert_allclose(loss_a + loss_b, whole_loss, rtol=1e-5)
    added = losses.mean_metrics(losses.add_metrics(a, b))
    for name, value in losses.mean_metrics(whole).items():
        np.testing.assert_allclose(added[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    repair = np.asarray(batch.loss_mask)[np.asarray(batch.stream) == REPAIR_STREAM]
    assert added["repair/tokens"] == repair.sum()
    assert added["policy/tokens"] == np.asarray(batch.loss_mask).sum() - repair.sum()


def test_column_t_speaks_about_token_t():
    # The head is the identity and hidden[:, t] points at token t + 1 with logit 5, but for column 1, which is flat.
    tokens = jnp.array([[1, 3, 0, 2]])
    hidden = 5.0 * jax.nn.one_hot(jnp.array([[3, 9, 2, 1]]), 4)
    logprobs, entropy = losses.completion_logprobs(hidden, jnp.eye(4), tokens, vocab_chunk=3)
    # log(e^5 / (e^5 + 3)) = -0.020012; flat: -log 4.
    np.testing.assert_allclose(logprobs, [[0, -0.020012, -np.log(4), -0.020012]], rtol=1e-4)
    np.testing.assert_allclose(entropy[0, 2], np.log(4), rtol=1e-6)
    later = losses.completion_logprobs(hidden, jnp.eye(4), tokens, vocab_chunk=3, first_column=2)
    np.testing.assert_allclose(later[0], [[0, 0, *logprobs[0, 2:]]], rtol=1e-6)
    np.testing.assert_allclose(later[1], [[0, 0, *entropy[0, 2:]]], rtol=1e-6)
    # So the gradient of a loss on column 2 alone reaches hidden column 1 alone.
    grad = jax.grad(lambda h: losses.completion_logprobs(h, jnp.eye(4), tokens)[0][0, 2])(hidden)
    np.testing.assert_array_equal(np.abs(grad).max(axis=-1) > 0, [[False, True, False, False]])
    alone = losses.completion_logprobs(hidden[:, :1], jnp.eye(4), tokens[:, :1])
    np.testing.assert_array_equal(alone[0], [[0]])
    with pytest.raises(ValueError, match=r"first_column = 0: must be in \[1, 4\]"):
        losses.completion_logprobs(hidden, jnp.eye(4), tokens, first_column=0)


def test_unknown_words_are_refused():
    with pytest.raises(
        ValueError, match="aggregation = 'mean': must be one of seq_mean_token_mean"
    ):
        losses.row_coefficients(HAND, aggregation="mean", max_completion=4)
    with pytest.raises(ValueError, match="ratio = 'step': must be one of token, sequence"):
        loss_and_metrics(jnp.log(RATIO), HAND, ratio="step")
    with pytest.raises(ValueError, match="kl_estimator = 'k4': must be one of k1, k2, k3"):
        batch = HAND._replace(ref_logprobs=jnp.zeros((2, 3)))
        loss_and_metrics(jnp.log(RATIO), batch, kl_coef=1.0, kl_estimator="k4")
