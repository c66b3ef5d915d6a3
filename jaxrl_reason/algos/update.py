"""One optimizer update: microbatches with one denominator, skipped when it would do harm, compiled once.

Device side; `make_optimizer` and `make_update` run on the host, what they return is jit-safe or jitted.
Reads: TrainState and TrainBatch. Writes: nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxrl_reason.algos import losses
from jaxrl_reason.types import Params, TrainBatch, TrainState, take_rows

# (params, tokens [B, T], token_mask [B, T]) -> final hidden states [B, T, D]
HiddenFn = Callable[[Params, Array, Array], Array]
# params -> output projection [V, D], or what another PredictFn takes
HeadFn = Callable[[Params], Any]
# (hidden [B, T, D], what HeadFn gave, tokens [B, T]) -> (log-probs or values [B, T], entropy or nothing [B, T])
PredictFn = Callable[[Array, Any, Array], tuple[Array, Array]]
Metrics = dict[str, Float[Array, ""]]
# (logprobs [B, T], entropy [B, T], TrainBatch, coefficients [B, T]) -> (loss sum, metric sums)
LossFn = Callable[[Array, Array, TrainBatch, Array], tuple[Array, losses.MetricSums]]

# Share of the peak learning rate, by the share of the updates after the warm-up that are done.
DECAYS = {
    "constant": lambda done: jnp.ones_like(done),
    "cosine": lambda done: 0.5 * (1 + jnp.cos(jnp.pi * done)),
    "linear": lambda done: 1 - done,
}


def make_schedule(optim_config: Any, num_updates: int) -> optax.Schedule:
    """Learning rate by applied updates: peak * min((n + 1) / warmup, 1) * decay((n - warmup) / (num_updates - warmup)).

    Args:
      optim_config: `config.optim`; reads learning_rate, schedule, warmup_updates.
      num_updates: optimizer updates in the whole run; the decaying schedules reach 0 there.
    Returns:
      A function of the number of applied updates. The first update has peak / warmup, not 0: it is not lost.
    Raises:
      ValueError: an unknown schedule.
    """
    if optim_config.schedule not in DECAYS:
        raise ValueError(
            f"optim.schedule = {optim_config.schedule!r}: must be one of {', '.join(DECAYS)}"
        )
    decay, peak, warmup = (
        DECAYS[optim_config.schedule],
        optim_config.learning_rate,
        optim_config.warmup_updates,
    )

    def schedule(count: Int[Array, ""] | int) -> Float[Array, ""]:
        count = jnp.asarray(count, jnp.float32)
        warm = jnp.minimum((count + 1) / max(warmup, 1), 1)
        done = jnp.clip((count - warmup) / max(num_updates - warmup, 1), 0, 1)
        return peak * warm * decay(done)

    return schedule


def make_optimizer(optim_config: Any, num_updates: int) -> optax.GradientTransformation:
    """AdamW after clipping the global norm of the gradient, with a warmed-up schedule.

    Args:
      optim_config: `config.optim`, or anything with its attributes.
      num_updates: optimizer updates in the whole run (rollout batches times minibatches).
    Returns:
      An optax transformation; grad_clip 0 leaves the clipping out.
    Raises:
      ValueError: an unknown schedule.
    Example:
      >>> from jaxrl_reason import config
      >>> optimizer = make_optimizer(config.base().optim, num_updates=10)
      >>> updates, _ = optimizer.update(jnp.ones(2), optimizer.init(jnp.zeros(2)), jnp.zeros(2))
      >>> print(updates)  # Adam's first move is the learning rate, 3e-4, against the gradient's sign
      [-0.0003 -0.0003]
    """
    adamw = optax.adamw(
        make_schedule(optim_config, num_updates),
        b1=optim_config.b1,
        b2=optim_config.b2,
        eps=optim_config.eps,
        weight_decay=optim_config.weight_decay,
    )
    # Always two links, so that a resumed run may turn clipping on and off: the state of one is the state of the other.
    clip = optim_config.grad_clip
    return optax.chain(optax.clip_by_global_norm(clip) if clip else optax.identity(), adamw)


class Update:
    """Jitted (state, batch) -> (state, metrics), one program that gives log-probs as well.

    `num_compiles` says how many programs it became.

    A run has one: the same shapes and dtypes in every call. Counted are the traces, since jit's own cache also counts
    signatures that share a program. Not seen is a call that differs in sharding alone: `state_sharding` rules that out.
    """

    def __init__(self, function: Callable, frozen: Params | None = None, **jit_options: Any):
        self.num_compiles = 0
        self.frozen = frozen

        def traced(state, batch, frozen, trains):
            self.num_compiles += 1
            return function(state, batch, frozen, trains)

        self.jitted = jax.jit(traced, **jit_options)

    def __call__(self, state: TrainState, batch: TrainBatch) -> tuple[TrainState, Metrics]:
        # An argument, never a constant of the compiled program, which would hold a copy of it.
        state, metrics, _ = self.jitted(state, batch, self.frozen, True)
        return state, metrics

    def logprobs(
        self, state: TrainState, batch: TrainBatch
    ) -> tuple[TrainState, Float[Array, "B T"]]:
        """Log-probs of the loss tokens under the state, which comes back as it was (and is donated likewise).

        The program of the update itself computes them, gradient included: in bfloat16 another one rounds otherwise, by
        more than a sequence ratio may move before it is clipped.
        """
        state, _, logprobs = self.jitted(state, batch, self.frozen, False)
        return state, logprobs


def policy_loss_fn(loss_config: Any) -> LossFn:
    """`losses.policy_loss` with the switches of `config.loss`."""
    return functools.partial(
        losses.policy_loss,
        ratio=loss_config.ratio,
        clip_low=loss_config.clip_low,
        clip_high=loss_config.clip_high,
        dual_clip=loss_config.dual_clip,
        kl_coef=loss_config.kl_coef,
        kl_estimator=loss_config.kl_estimator,
        entropy_coef=loss_config.entropy_coef,
    )


def make_microbatch_loss(
    hidden_fn: HiddenFn,
    head_fn: HeadFn,
    *,
    loss_config: Any,
    temperature: float | int,
    first_column: int,
    loss_fn: LossFn | None = None,
    join_fn: Callable[[Params, Params], Params] | None = None,
    predict_fn: PredictFn | None = None,
) -> Callable:
    """(params, frozen, TrainBatch, coefficients [B, T]) -> (loss sum, (metric sums, log-probs [B, T])).

    Arguments as of `make_update`.
    """
    loss_fn = loss_fn or policy_loss_fn(loss_config)
    predict_fn = predict_fn or functools.partial(
        losses.completion_logprobs,
        temperature=temperature,
        vocab_chunk=loss_config.vocab_chunk,
        first_column=first_column,
    )

    def microbatch_loss(params, frozen, batch, coefficients):
        params = params if join_fn is None else join_fn(frozen, params)
        hidden = hidden_fn(params, batch.tokens, batch.token_mask)
        logprobs, entropy = predict_fn(hidden, head_fn(params), batch.tokens)
        loss, sums = loss_fn(logprobs, entropy, batch, coefficients)
        return loss, (sums, jax.lax.stop_gradient(logprobs))

    return microbatch_loss


def make_update(
    hidden_fn: HiddenFn,
    head_fn: HeadFn,
    optimizer: optax.GradientTransformation,
    *,
    loss_config: Any,
    microbatch_rows: int,
    temperature: float | int,
    max_completion: int,
    first_column: int = 1,
    streams: Sequence[str] = ("policy",),
    loss_fn: LossFn | None = None,
    frozen: Params | None = None,
    join_fn: Callable[[Params, Params], Params] | None = None,
    predict_fn: PredictFn | None = None,
    donate: bool = True,
    row_sharding: jax.sharding.NamedSharding | None = None,
    state_sharding: Any = None,
    batch_sharding: Any = None,
) -> Update:
    """Build the jitted update: one gradient of `losses.policy_loss` over the whole batch, one optimizer update.

    Live rows (weight other than 0, at least one loss token) are packed to the front and only the
    ceil(live / microbatch_rows) microbatches that hold any are computed, in a loop of dynamic length: padding rows cost
    nothing and no number of live rows compiles anew. Coefficients come from the whole batch, so the gradient does not
    depend on the split. With no live row, or a loss or gradient that is not finite, parameters and optimizer state stay
    as they are; `num_updates` counts on all the same.

    Args:
      hidden_fn: (params, tokens [B, T], token_mask [B, T]) -> hidden [B, T, D].
      head_fn: params -> [V, D].
      optimizer: from `make_optimizer`.
      loss_config: `config.loss`, or anything with its attributes.
      microbatch_rows: rows whose activations are alive at once; must divide the rows of the batch.
      temperature: the one that sampled the tokens.
      max_completion: L_const of seq_sum_over_const, tokens.
      first_column: columns before it hold no loss token in any row, static: prompt width P, or 1.
      streams: whose metrics are returned: "policy", "repair" or both.
      loss_fn: replaces `losses.policy_loss` with the switches of `loss_config`, `losses.imitation_loss` for instance.
      frozen: parameters that stay as they are, not part of the state; None: there are none.
      join_fn: (frozen, state.params) -> what hidden_fn and head_fn take; needed with `frozen`.
      predict_fn: replaces `losses.completion_logprobs`; with a `loss_fn` for what it predicts, a critic's values.
      donate: let the new state reuse the memory of the old one, which may then not be used again.
      row_sharding: spreads axis 0 of a [microbatch_rows, T] array over the devices; None: as the compiler likes.
      state_sharding: pytree of shardings of the state, in and out; None: as the arrays are.
      batch_sharding: likewise of the batch, in.
    Returns:
      update(state, batch) -> (state, metrics): float32 scalars `policy/loss`, `policy/grad_norm` (before clipping),
      `policy/param_norm` (after the update), `policy/update_norm`, `policy/nonfinite` and `policy/skipped` (0 or 1),
      `policy/live_rows`, and per stream `kl`, `entropy`, `ratio_mean`, `ratio_max`, `clip_frac_low`, `clip_frac_high`,
      `tokens`.
    Raises:
      ValueError: microbatch_rows < 1 or unevenly spread over the devices; on the first call, rows that are no multiple
        of microbatch_rows, or an unknown word in loss_config.
    Example:
      >>> from jaxrl_reason import config
      >>> params, optimizer = {"embed": jnp.zeros((4, 2)), "head": jnp.ones((4, 2))}, optax.sgd(0.1)
      >>> update = make_update(
      ...     lambda params, tokens, token_mask: params["embed"][tokens], lambda params: params["head"], optimizer,
      ...     loss_config=config.base().loss, microbatch_rows=1, temperature=1.0, max_completion=2,
      ... )
      >>> mask, row, grid = jnp.array([[False, True, True]]), jnp.ones(1), jnp.ones((1, 3))
      >>> tokens = jnp.array([[1, 2, 3]])
      >>> batch = TrainBatch(tokens, mask | True, mask, grid, -1.386294 * grid, None, row, tokens[:, 0] * 0, row)
      >>> state = TrainState(jnp.zeros((), int), params, optimizer.init(params), jax.random.key(0))
      >>> state, metrics = update(state, batch)
      >>> print(metrics["policy/loss"].round(4), metrics["policy/entropy"].round(4), state.num_updates)
      -1.0 1.3863 1
    """
    _check_rows(microbatch_rows, row_sharding)
    param_sharding = state_sharding.params if isinstance(state_sharding, TrainState) else None
    microbatch_loss = make_microbatch_loss(
        hidden_fn,
        head_fn,
        loss_config=loss_config,
        temperature=temperature,
        first_column=first_column,
        loss_fn=loss_fn,
        join_fn=join_fn,
        predict_fn=predict_fn,
    )

    def update(state, batch, frozen, trains):
        coefficients = losses.row_coefficients(
            batch, aggregation=loss_config.aggregation, max_completion=max_completion
        )
        packed, num_live, live_first = _pack(batch, coefficients, microbatch_rows, row_sharding)
        num_microbatches = -(-num_live // microbatch_rows)
        loss, sums, gradient, logprobs = _accumulate(
            microbatch_loss, state.params, frozen, packed, num_microbatches, param_sharding
        )
        logprobs = logprobs.reshape(batch.tokens.shape)[jnp.argsort(live_first)]
        state, metrics = _apply(optimizer, state, loss, gradient, num_live, trains)
        means = losses.mean_metrics(sums)
        metrics |= {name: x for name, x in means.items() if name.split("/")[0] in streams}
        return state, metrics, logprobs

    shardings = {}
    if state_sharding is not None or batch_sharding is not None:
        shardings = {
            "in_shardings": (state_sharding, batch_sharding, None, None),
            "out_shardings": (state_sharding, None, batch_sharding),
        }
    return Update(update, frozen, donate_argnums=(0,) if donate else (), **shardings)


def _check_rows(microbatch_rows: int, row_sharding: jax.sharding.NamedSharding | None) -> None:
    if microbatch_rows < 1:
        raise ValueError(f"optim.microbatch_rows = {microbatch_rows}: must be >= 1")
    if row_sharding is not None:
        first = row_sharding.spec[0] if len(row_sharding.spec) else None
        axes = (first,) if isinstance(first, str) else (first or ())
        devices = 1
        for axis in axes:
            devices *= row_sharding.mesh.shape[axis]
        if microbatch_rows % devices:
            raise ValueError(
                f"optim.microbatch_rows = {microbatch_rows}: must be a multiple of the {devices} devices"
                " that share rows"
            )


def _pack(batch, coefficients, microbatch_rows, row_sharding):
    """((batch, coefficients) as [M, rows, ...] with live rows first, number of live rows, their order)."""
    num_rows = batch.tokens.shape[0]
    if num_rows % microbatch_rows:
        fits = -(-num_rows // microbatch_rows) * microbatch_rows
        raise ValueError(
            f"a batch of {num_rows} rows does not split into microbatches of {microbatch_rows}:"
            f" pad it with rows of weight 0 to {fits}, or change optim.microbatch_rows"
        )
    live = losses.live_rows(batch)
    live_first = jnp.argsort(~live, stable=True)

    def split(x):
        x = x.reshape(num_rows // microbatch_rows, microbatch_rows, *x.shape[1:])
        if row_sharding is None:
            return x
        # The reshape alone would put whole microbatches on one device each, and the others would wait.
        spec = jax.sharding.PartitionSpec(None, *row_sharding.spec[:1])
        return jax.lax.with_sharding_constraint(
            x, jax.sharding.NamedSharding(row_sharding.mesh, spec)
        )

    packed = jax.tree.map(split, take_rows((batch, coefficients), live_first))
    return packed, jnp.sum(live, dtype=jnp.int32), live_first


def _accumulate(loss_fn, params, frozen, packed, num_microbatches, param_sharding):
    """(loss, metric sums, gradient) of the first `num_microbatches` microbatches, and their log-probs [M, rows, T]."""
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def like_params(gradient):
        # Said in so many words: a loop's carry would else be free to hold the whole gradient on every device.
        return (
            gradient
            if param_sharding is None
            else jax.lax.with_sharding_constraint(gradient, param_sharding)
        )

    def body(index, total):
        batch, coefficients = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), packed
        )
        (loss, (sums, logprobs)), gradient = value_and_grad(params, frozen, batch, coefficients)
        # Added in float32 even for bfloat16 parameters, or small microbatches would vanish in the sum.
        gradient = like_params(jax.tree.map(jnp.add, total[2], gradient))
        seen = jax.lax.dynamic_update_index_in_dim(total[3], logprobs, index, axis=0)
        return total[0] + loss, losses.add_metrics(total[1], sums), gradient, seen

    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), packed)
    loss, (sums, _) = jax.eval_shape(loss_fn, params, frozen, *one)
    gradient = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params
    )
    loss, sums, gradient = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), (loss, sums, gradient)
    )
    seen = jnp.zeros(packed[1].shape, jnp.float32)
    return jax.lax.fori_loop(0, num_microbatches, body, (loss, sums, like_params(gradient), seen))


def _norm(tree):
    return optax.tree.norm(jax.tree.map(lambda x: x.astype(jnp.float32), tree))


def _apply(optimizer, state, loss, gradient, num_live, trains):
    """(state after the optimizer update or, where that would do harm, as it was; metrics of the update)."""
    grad_norm = _norm(gradient)
    is_finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    applied = is_finite & (num_live > 0) & trains

    def apply(gradient, params, opt_state):
        gradient = jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, _norm(updates)

    def keep(gradient, params, opt_state):
        return params, opt_state, jnp.zeros_like(grad_norm)

    params, opt_state, update_norm = jax.lax.cond(
        applied, apply, keep, gradient, state.params, state.opt_state
    )
    metrics = {
        "policy/loss": loss,
        "policy/grad_norm": grad_norm,
        "policy/param_norm": _norm(params),
        "policy/update_norm": update_norm,
        "policy/nonfinite": ~is_finite,
        "policy/skipped": ~applied,
        "policy/live_rows": num_live,
    }
    num_updates = state.num_updates + jnp.asarray(trains, state.num_updates.dtype)
    state = state._replace(num_updates=num_updates, params=params, opt_state=opt_state)
    return state, {name: x.astype(jnp.float32) for name, x in metrics.items()}
