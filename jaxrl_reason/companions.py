"""The second model that some methods train beside the policy: PRIME's implicit reward model, PPO's critic.

Host side; drives the device. Reads: a Run. Writes: nothing; its TrainState is the field `companion` of the run's, and
lies in the same checkpoints, so that a resumed run is bitwise the run that was not stopped.

A method says which one it needs by its attribute `companion`; it gets it as `stages.companion`, bound to its state,
and returns the state in `Built.companion`. Both start from the policy as it was loaded.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason import parts, sharding, timing
from jaxrl_reason.algos import implicit, values
from jaxrl_reason.algos import update as algos_update
from jaxrl_reason.models import transformer
from jaxrl_reason.rollout import batching
from jaxrl_reason.types import Params, Row, TrainState


class Second:
    """What stays the same from the first update to the last: optimizer, compiled update, scorer."""

    def __init__(self, run: parts.Run, name: str, first: _First):
        config, self.run, self.name = run.config, run, name
        self._params, self._scorer = first.params, first.scorer
        optim = config.optim.copy_and_resolve_references()
        optim.learning_rate = first.learning_rate
        self._optimizer = algos_update.make_optimizer(
            optim, config.train.num_updates * config.optim.minibatches
        )
        self._places = sharding.state_shardings(
            run.mesh, first.axes, parts.state_shapes(self._optimizer, first.params)
        )
        loss = types.SimpleNamespace(
            aggregation=first.aggregation, vocab_chunk=config.loss.vocab_chunk
        )
        self.update = algos_update.make_update(
            first.hidden_fn,
            first.head_fn,
            self._optimizer,
            loss_config=loss,
            loss_fn=first.loss_fn,
            predict_fn=first.predict_fn,
            microbatch_rows=config.optim.microbatch_rows,
            temperature=config.rollout.temperature,
            max_completion=run.engine.shapes.completion,
            first_column=run.engine.shapes.prompt,
            row_sharding=sharding.batch_sharding(run.mesh),
            state_sharding=self._places,
            batch_sharding=sharding.batch_sharding(run.mesh),
        )

    def first_state(self) -> TrainState:
        """State before the first update, placed on the mesh."""
        # Copies: the update donates its state, and the policy's own arrays stay.
        params = jax.tree.map(jnp.copy, jax.device_put(self._params, self._places.params))
        state = TrainState(
            num_updates=jnp.int32(0),
            params=params,
            opt_state=jax.jit(self._optimizer.init, out_shardings=self._places.opt_state)(params),
            key=jax.random.key(self.run.config.seed),
        )
        return jax.device_put(state, self._places)

    def bind(self, state: TrainState, clock: timing.Clock) -> Bound:
        """`types.Companion` with this state in it, timed."""
        return Bound(self, state, clock)

    def predict(self, params: Params, prompts, completions) -> list[np.ndarray]:
        """Figures of completion tokens under given parameters."""
        temperature = self.run.config.rollout.temperature
        return self.run.engine.score(
            params, prompts, completions, temperature=temperature, scorer=self._scorer
        )


@dataclasses.dataclass(frozen=True)
class Bound:
    """`types.Companion`: the second model with its state of this update."""

    second: Second
    state: TrainState
    clock: timing.Clock

    def predict(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> list[np.ndarray]:
        """Log-probs of the implicit reward model, or values of the critic."""
        with self.clock.time(self.second.name):
            return self.second.predict(self.state.params, prompts, completions)

    def train(
        self, rows: Sequence[Row], rng: np.random.Generator
    ) -> tuple[Bound, dict[str, float]]:
        """One pass over the rows in `optim.minibatches` updates; metrics of the last one.

        Raises:
          FloatingPointError: its loss or gradient is not finite.
        """
        run, name, state = self.second.run, self.second.name, self.state
        results: dict[str, Any] = {}
        with self.clock.time(name):
            for part in batching.minibatches(rows, run.config.optim.minibatches, rng):
                batch = batching.pack_rows(
                    part,
                    num_rows=parts.train_rows(run.config, run.method),
                    prompt_length=run.engine.shapes.prompt,
                    completion_length=run.engine.shapes.completion,
                    pad_id=run.policy.tokenizer.pad_token_id,
                )
                state, results = self.second.update(state, parts.place_batch(run, batch))
        if results["policy/nonfinite"]:
            field = {"critic": "ppo.critic_learning_rate"}.get(name, "prime.learning_rate")
            raise FloatingPointError(
                f"the {name}'s loss or gradient is not finite; lower its learning rate ({field}), or set"
                " optim.grad_clip, and go on with --resume"
            )
        named = {k.replace("policy/", f"{name}/"): float(v) for k, v in results.items()}
        return dataclasses.replace(self, state=state), named


@dataclasses.dataclass(frozen=True)
class _First:
    """What sets one kind of second model apart."""

    params: Params
    axes: Any  # logical names of their axes
    learning_rate: float
    aggregation: str
    hidden_fn: algos_update.HiddenFn
    head_fn: algos_update.HeadFn
    loss_fn: algos_update.LossFn
    predict_fn: algos_update.PredictFn | None
    scorer: Callable | None  # None: log-probs, as the policy's


def make(run: parts.Run) -> Second | None:
    """The second model that the run's method needs; None: it needs none.

    Raises:
      ValueError: the method asks for a kind that does not exist.
    """
    name = getattr(run.method, "companion", None)
    if name is None:
        return None
    if name not in _KINDS:
        raise ValueError(
            f"method.companion = {name!r}: must be one of {', '.join(_KINDS)}, or None"
        )
    return Second(run, name, _KINDS[name](run))


def _prm(run: parts.Run) -> _First:
    """A language model like the policy, whose log-ratio to the start policy is the reward (2502.01456)."""
    settings = run.config.prime

    def hidden_fn(params, tokens, token_mask):
        return transformer.forward(run.policy.config, params, tokens, token_mask, mesh=run.mesh)[0]

    return _First(
        params=run.policy.params,
        axes=transformer.logical_axes(run.policy.config),
        learning_rate=settings.learning_rate,
        aggregation="seq_mean_token_mean",
        hidden_fn=hidden_fn,
        head_fn=transformer.head,
        loss_fn=functools.partial(implicit.outcome_loss, beta=settings.beta),
        predict_fn=None,
        scorer=None,
    )


def _critic(run: parts.Run) -> _First:
    """The policy's layers with a head of one value, which starts at 0."""
    # Tied: a head over the vocabulary is neither made nor kept.
    model = dataclasses.replace(run.policy.config, tied=True)
    shapes, settings = run.engine.shapes, run.config.ppo
    trunk = {name: x for name, x in run.policy.params.items() if name != "head"}
    head = {"kernel": jnp.zeros(model.d_model), "bias": jnp.zeros(())}

    def hidden_fn(params, tokens, token_mask):
        return transformer.forward(model, params["trunk"], tokens, token_mask, mesh=run.mesh)[0]

    def predict_fn(hidden, head, tokens):
        found = values.completion_values(hidden, **head, first_column=shapes.prompt)
        return found, jnp.zeros_like(found)

    # The temperature is an argument of every scorer; a value has none.
    @functools.partial(jax.jit, static_argnums=3)
    def scorer(params, tokens, token_mask, temperature):
        hidden = hidden_fn(params, tokens, token_mask)
        return jnp.where(token_mask, values.completion_values(hidden, **params["value"]), 0)

    return _First(
        params={"trunk": trunk, "value": head},
        axes={
            "trunk": transformer.logical_axes(model),
            "value": {"kernel": (None,), "bias": ()},
        },
        learning_rate=settings.critic_learning_rate,
        aggregation=run.config.loss.aggregation,
        hidden_fn=hidden_fn,
        head_fn=lambda params: params["value"],
        loss_fn=functools.partial(values.value_loss, value_clip=settings.value_clip),
        predict_fn=predict_fn,
        scorer=scorer,
    )


_KINDS: dict[str, Callable[[parts.Run], _First]] = {"prm": _prm, "critic": _critic}
