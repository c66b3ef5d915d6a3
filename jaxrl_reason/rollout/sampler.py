"""Sample completions and score given ones: prompts read once, tokens drawn in one loop on the device.

Device side, jit-safe. Reads: params, prompt ids. Writes: nothing.

Shape letters: N prompts, G samples, B = N * G rows, P prompt columns, C completion columns, T = P + C, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_reason import sharding
from jaxrl_reason.algos import losses
from jaxrl_reason.models import cache as kv
from jaxrl_reason.models import transformer
from jaxrl_reason.models.transformer import ModelConfig
from jaxrl_reason.rollout import sampling
from jaxrl_reason.types import Params, Rollout

# Every array below may come from the host.
Host = np.ndarray


@runtime_checkable
class Sampler(Protocol):
    """What `make_sampler` returns."""

    def __call__(
        self,
        params: Params,
        prompts: Int[Array | Host, "N P"],
        prompt_mask: Bool[Array | Host, "N P"],
        budget: Int[Array | Host, " N"],
        temperature: Float[Array, ""] | float | int,
        key: Key[Array, ""],
    ) -> Rollout: ...


@runtime_checkable
class Scorer(Protocol):
    """What `make_scorer` returns."""

    def __call__(
        self,
        params: Params,
        tokens: Int[Array | Host, "B T"],
        token_mask: Bool[Array | Host, "B T"],
        temperature: float | int = 1.0,
    ) -> Float[Array, "B T"]: ...


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What is fixed when a sampler is compiled."""

    num_samples: int
    max_new_tokens: int
    eos_ids: tuple[int, ...]
    pad_id: int
    greedy: bool
    top_k: int
    top_p: float

    def __post_init__(self) -> None:
        for name in ("num_samples", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be >= 1")


class _Decoding(NamedTuple):
    """State of the loop over completion columns."""

    column: Int[Array, ""]  # completion columns already drawn
    tokens: Int[Array, "B C"]  # pad id on columns that were not drawn
    logprobs: Float[Array, "B C"]  # 0 there
    drawn: Bool[Array, "B C"]
    latest: Int[Array, " B"]  # last token of each row, what the next forward pass reads
    live: Bool[Array, " B"]  # rows that go on: no EOS yet, budget left
    cache: kv.KVCache


def make_sampler(
    config: ModelConfig,
    *,
    num_samples: int,
    max_new_tokens: int,
    eos_id: int | tuple[int, ...],
    pad_id: int,
    greedy: bool = False,
    top_k: int = 0,
    top_p: float = 1.0,
    mesh: Mesh | None = None,
) -> Sampler:
    """Compiled function from prompts to `num_samples` completions each.

    Args:
      config: of the model.
      num_samples: G, completions per prompt; row n * G + j is sample j of prompt n.
      max_new_tokens: C, completion columns.
      eos_id: a row ends with this token, or any of these, which counts as part of it. An id that the model cannot
        make: never.
      pad_id: written where there is no token.
      greedy: take the most likely token instead of a draw. A temperature of 0 does the same.
      top_k: see `sampling.adjust_logits`; 0: off.
      top_p: likewise; 1: off.
      mesh: devices that share rows and parameters; None: one device.
    Returns:
      sample(params, prompts [N, P], prompt_mask [N, P], budget [N], temperature, key) -> Rollout. Prompts are
      left-padded. `budget` is the most tokens that each row of a prompt may draw (at most C); rows with 0 are dead
      from the start and cost no step, so pad N with them. Log-probs are those of the distribution that was drawn
      from (after temperature, top-k and top-p), at temperature 1 where the most likely token was taken.
      `truncated`: the budget ended before EOS. To extend given tokens, pass prompt + tokens as the prompt and a
      smaller budget. What column c of a completion draws depends on (key, c) and the row, and on nothing else:
      neither on padding nor on when other rows end. Compiled once per shape; the temperature is an argument of the
      compiled code.
    Raises:
      ValueError: sizes below 1, a bad top_k or top_p; with a mesh, an N that does not divide over its row axes.
    Example:
      >>> config = transformer.PRESETS["tiny"]
      >>> params = transformer.init_params(config, jax.random.key(0))
      >>> sample = make_sampler(config, num_samples=2, max_new_tokens=3, eos_id=128, pad_id=0)
      >>> prompts = np.asarray([[0, 5, 7]])
      >>> sample(params, prompts, prompts > 0, np.asarray([3]), 1.0, jax.random.key(1)).tokens.shape
      (2, 6)
    """
    eos_ids = (eos_id,) if isinstance(eos_id, int) else eos_id
    settings = _Settings(
        num_samples, max_new_tokens, eos_ids, pad_id, greedy, top_k=top_k, top_p=top_p
    )
    generate = functools.partial(_generate, config=config, settings=settings, mesh=mesh)

    def run(*arguments: Any) -> Rollout:
        return generate(*arguments)[0]

    placed = {}
    if mesh is not None:
        rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
        placed = {
            "in_shardings": (_param_shardings(config, mesh), rows, rows, rows, whole, whole),
            "out_shardings": rows,
        }
    compiled = jax.jit(run, **placed)

    def sample(params, prompts, prompt_mask, budget, temperature, key):
        _check_rows(prompts.shape[0], mesh)
        return compiled(
            params, prompts, prompt_mask, budget, jnp.asarray(temperature, jnp.float32), key
        )

    return sample


def _param_shardings(config: ModelConfig, mesh: Mesh) -> Any:
    return sharding.param_shardings(
        mesh, transformer.logical_axes(config), transformer.param_shapes(config)
    )


def _check_rows(rows: int, mesh: Mesh | None) -> None:
    if mesh is not None and rows % sharding.row_shards(mesh):
        raise ValueError(
            f"{rows} rows over {sharding.row_shards(mesh)} row shards of the mesh: pad to a multiple of it"
            " with rows of budget 0 (sampler) or an empty mask (scorer)"
        )


def _generate(
    params: Params,
    prompts: Int[Array, "N P"],
    prompt_mask: Bool[Array, "N P"],
    budget: Int[Array, " N"],
    temperature: Float[Array, ""],
    key: Key[Array, ""],
    *,
    config: ModelConfig,
    settings: _Settings,
    mesh: Mesh | None,
) -> tuple[Rollout, Int[Array, ""]]:
    """The rollout and the number of tokens per row that were read one at a time."""
    params = transformer.compute_params(config, params)
    # Once here, and not once per token in the loop below.
    params = sharding.gather_params(params, mesh, transformer.logical_axes(config))
    params = transformer.unstack_layers(config, params)
    budget = jnp.repeat(jnp.minimum(budget, settings.max_new_tokens), settings.num_samples)
    draw = functools.partial(_draw, temperature=temperature, key=key, settings=settings)
    state, logits_BV = _read_prompts(params, prompts, prompt_mask, budget, config, settings, mesh)
    state = _advance(state, *draw(logits_BV, state.column), budget, settings)

    def step(state: _Decoding) -> _Decoding:
        hidden_B1D, cache = transformer.forward(
            config, params, state.latest[:, None], state.live[:, None], state.cache, mesh=mesh
        )
        logits_BV = transformer.logits(params, hidden_B1D[:, 0])
        state = state._replace(cache=cache)
        return _advance(state, *draw(logits_BV, state.column), budget, settings)

    # A live row has budget left, so the last column ends the loop too.
    state = jax.lax.while_loop(lambda state: jnp.any(state.live), step, state)
    rollout = _make_rollout(state, prompts, prompt_mask, settings)
    return rollout, state.cache.length


def _read_prompts(
    params: Params,
    prompts: Array,
    prompt_mask: Array,
    budget: Array,
    config: ModelConfig,
    settings: _Settings,
    mesh: Mesh | None,
) -> tuple[_Decoding, Float[Array, "B V"]]:
    """Read each prompt once; state before the first draw, and the logits of that draw."""
    (num_prompts, columns), samples = prompts.shape, settings.num_samples
    cache = kv.empty(config, rows=num_prompts, columns=columns)
    hidden_NPD, cache = transformer.forward(config, params, prompts, prompt_mask, cache, mesh=mesh)
    # Prompts are left-padded: the last column is the last token of every one.
    logits_NV = transformer.logits(params, hidden_NPD[:, -1])
    cache = kv.share(cache, num_samples=samples, columns=settings.max_new_tokens)
    names = ("rows", "kv_heads", None, None)
    layers = jax.tree.map(lambda x: sharding.constrain(x, mesh, names), cache.layers)
    cache = cache._replace(layers=layers)
    shape = (num_prompts * samples, settings.max_new_tokens)
    state = _Decoding(
        column=jnp.zeros((), jnp.int32),
        tokens=jnp.full(shape, settings.pad_id, jnp.int32),
        logprobs=jnp.zeros(shape, jnp.float32),
        drawn=jnp.zeros(shape, bool),
        latest=jnp.full(shape[:1], settings.pad_id, jnp.int32),
        live=budget > 0,
        cache=cache,
    )
    return state, jnp.repeat(logits_NV, samples, axis=0)


def _draw(
    logits_BV: Float[Array, "B V"],
    column: Int[Array, ""],
    *,
    temperature: Float[Array, ""],
    key: Key[Array, ""],
    settings: _Settings,
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """One token per row, and its log-prob under the distribution it was drawn from."""

    def take_best():
        best_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        return best_B, _logprob_of(best_B, logits_BV)

    def take_random():
        adjusted_BV = sampling.adjust_logits(
            logits_BV, temperature=temperature, top_k=settings.top_k, top_p=settings.top_p
        )
        token_B = sampling.draw(jax.random.fold_in(key, column), adjusted_BV)
        return token_B, _logprob_of(token_B, adjusted_BV)

    if settings.greedy:
        return take_best()
    return jax.lax.cond(temperature > 0.0, take_random, take_best)


def _logprob_of(token_B: Array, logits_BV: Array) -> Array:
    chosen_B = jnp.take_along_axis(logits_BV, token_B[:, None], axis=-1)[:, 0]
    return chosen_B - jax.nn.logsumexp(logits_BV, axis=-1)


def _advance(
    state: _Decoding,
    token_B: Int[Array, " B"],
    logprob_B: Float[Array, " B"],
    budget_B: Int[Array, " B"],
    settings: _Settings,
) -> _Decoding:
    """Write one column for the rows that are live, then see which of them go on."""
    token_B = jnp.where(state.live, token_B, settings.pad_id)
    at = (0, state.column)
    write = jax.lax.dynamic_update_slice
    return state._replace(
        column=state.column + 1,
        tokens=write(state.tokens, token_B[:, None], at),
        logprobs=write(state.logprobs, jnp.where(state.live, logprob_B, 0.0)[:, None], at),
        drawn=write(state.drawn, state.live[:, None], at),
        latest=token_B,
        live=state.live & ~_is_eos(token_B, settings) & (state.column + 1 < budget_B),
    )


def _is_eos(tokens: Array, settings: _Settings) -> Array:
    return functools.reduce(jnp.logical_or, [tokens == eos for eos in settings.eos_ids])


def _make_rollout(
    state: _Decoding, prompts: Array, prompt_mask: Array, settings: _Settings
) -> Rollout:
    samples = settings.num_samples
    prompts_BP = jnp.where(prompt_mask, prompts, settings.pad_id).astype(jnp.int32)
    prompts_BP = jnp.repeat(prompts_BP, samples, axis=0)
    mask_BP = jnp.repeat(prompt_mask, samples, axis=0)
    ended_B = jnp.any(state.drawn & _is_eos(state.tokens, settings), axis=1)
    return Rollout(
        tokens=jnp.concatenate([prompts_BP, state.tokens], axis=1),
        token_mask=jnp.concatenate([mask_BP, state.drawn], axis=1),
        completion_mask=jnp.concatenate([jnp.zeros_like(mask_BP), state.drawn], axis=1),
        behavior_logprobs=jnp.concatenate(
            [jnp.zeros(mask_BP.shape, jnp.float32), state.logprobs], axis=1
        ),
        group_ids=jnp.repeat(jnp.arange(prompts.shape[0], dtype=jnp.int32), samples),
        truncated=~ended_B,
    )


def make_scorer(
    config: ModelConfig, *, mesh: Mesh | None = None, vocab_chunk: int = 4096
) -> Scorer:
    """Compiled function from given tokens to their log-probs: log softmax(logits[t-1] / temperature)[tokens[t]].

    Args:
      config: of the model.
      mesh: devices that share rows and parameters; None: one device.
      vocab_chunk: vocabulary columns held at once.
    Returns:
      score(params, tokens [B, T], token_mask [B, T], temperature=1.0) -> [B, T] float32 nats. Column t speaks about
      tokens[:, t]; 0 in column 0, on padding, and on the first real token of a row, which nothing precedes. Compiled
      once per shape and temperature.
    Example:
      >>> config = transformer.PRESETS["tiny"]
      >>> params = transformer.init_params(config, jax.random.key(0))
      >>> tokens = np.asarray([[0, 5, 7]])
      >>> print((make_scorer(config)(params, tokens, tokens > 0) < 0).astype(int))
      [[0 0 1]]
    """

    def run(params, tokens, token_mask, temperature):
        hidden_BTD, _ = transformer.forward(config, params, tokens, token_mask, mesh=mesh)
        logprobs_BT, _ = losses.completion_logprobs(
            hidden_BTD,
            transformer.head(params),
            tokens,
            temperature=temperature,
            vocab_chunk=vocab_chunk,
        )
        # The token before must be real too, or the first real token would depend on the padding.
        before_BT = jnp.pad(token_mask[:, :-1], ((0, 0), (1, 0)))
        return jnp.where(token_mask & before_BT, logprobs_BT, 0.0)

    placed = {}
    if mesh is not None:
        rows = sharding.batch_sharding(mesh)
        placed = {
            "in_shardings": (_param_shardings(config, mesh), rows, rows),
            "out_shardings": rows,
        }
    compiled = jax.jit(run, static_argnums=3, **placed)

    def score(params, tokens, token_mask, temperature=1.0):
        _check_rows(tokens.shape[0], mesh)
        return compiled(params, tokens, token_mask, float(temperature))

    return score
