"""Bytes per device of everything that a run holds, and of what lives for moments.

Host side. Reads: nothing. Writes: nothing; no array is made, and no device is needed.

Shapes come from `jax.eval_shape` of the run's own functions, pieces from its own sharding rules. Activations are
estimated from the jaxprs of the run's own programs by `ops.liveness`: the compiler decides the rest, see `TOLERANCE`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxrl_reason import parts, sharding
from jaxrl_reason.algos import losses
from jaxrl_reason.algos import update as algos_update
from jaxrl_reason.methods import make_method
from jaxrl_reason.models import cache as kv
from jaxrl_reason.models import transformer
from jaxrl_reason.models.model_config import ModelConfig
from jaxrl_reason.ops import liveness
from jaxrl_reason.rollout import batching
from jaxrl_reason.types import TrainBatch

# The estimate of a program's peak lies within this share of what the compiler says, on CPUs (tests/test_plan.py).
TOLERANCE = 0.3


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes per device on one mesh."""

    mesh: Mapping[str, int]  # devices per axis
    held: Mapping[str, int]  # all the time
    phases: Mapping[str, Mapping[str, int]]  # besides, while this phase runs

    @property
    def peak(self) -> int:
        """Most bytes at once."""
        return sum(self.held.values()) + max(sum(p.values()) for p in self.phases.values())


def estimate(
    config: ml_collections.ConfigDict,
    model: ModelConfig,
    shapes: batching.Shapes,
    mesh_shape: tuple[int, int, int],
) -> Estimate:
    """Bytes per device of all that the run holds on one mesh; rows are rounded up to what divides over it."""
    mesh = sharding.abstract_mesh(mesh_shape)
    held, gradient = _held(config, model, mesh)
    pieces = sharding.row_shards(mesh)
    traced = _Traced(config, model, mesh)
    rows = -(-config.optim.microbatch_rows // pieces)
    completion, first = shapes.completion, parts.prompt_columns(config, shapes)
    batch_rows = parts.train_rows(config, make_method(config, completion_tokens=completion))
    columns = first + completion
    batch = sum(
        map(liveness.nbytes, jax.tree.leaves(batch_shapes(-(-batch_rows // pieces), columns)))
    )
    phases = {
        "update": {
            "gradient": gradient,  # the sum over microbatches
            "activations": traced.update(
                rows, columns, first
            ),  # and the gradient of one microbatch
            "gathered table": traced.table,
            "batch": 2 * batch,  # as given, and in microbatches
        },
        "scoring": {
            "gathered table": traced.table,
            "activations": traced.forward(-(-shapes.chunk_rows // pieces), columns, score=True),
        },
    }
    weights = _sampler_weights(model, mesh)
    for name, (samples, width) in _stages(config, shapes).items():
        prompts = -(-max(shapes.chunk_rows // samples, 1) // pieces)  # of one device
        phases[f"sampling, {name}"] = {
            "weights": weights,
            "cache": _cache(model, mesh, prompts, width, samples, completion),
            "activations": max(
                traced.forward(prompts, width, score=False),
                3 * prompts * samples * model.vocab_size * 4,  # logits, noise, their sum
            ),
        }
    return Estimate(dict(mesh.shape), held, phases)


def least(config: Any, model: ModelConfig, mesh_shape: tuple[int, int, int]) -> int:
    """Bytes per device without activations, batches and caches; no program is looked at."""
    mesh = sharding.abstract_mesh(mesh_shape)
    held, gradient = _held(config, model, mesh)
    return sum(held.values()) + max(2 * gradient, _sampler_weights(model, mesh))


def _held(config: Any, model: ModelConfig, mesh: Any) -> tuple[dict[str, int], int]:
    """(bytes of what is held all the time, bytes of one gradient)."""
    optimizer = algos_update.make_optimizer(config.optim, config.train.num_updates)
    state = parts.state_shapes(optimizer, transformer.param_shapes(model))
    places = parts.state_shardings(model, mesh, state)
    params = _sharded_bytes(state.params, places.params)
    held = {"parameters": params, "optimizer": _sharded_bytes(state.opt_state, places.opt_state)}
    if config.loss.kl_coef:
        held["reference policy"] = params
    return held, params


def _sharded_bytes(shapes: Any, places: Any) -> int:
    def piece(x: Any, place: Any) -> int:
        return math.prod(place.shard_shape(x.shape)) * getattr(x.dtype, "itemsize", 16)

    return sum(jax.tree.leaves(jax.tree.map(piece, shapes, places)))


def _sampler_weights(model: ModelConfig, mesh: Any) -> int:
    """Weights in the compute dtype, whole along "fsdp", as the sampler's loop reads them."""
    params = jax.eval_shape(
        functools.partial(transformer.compute_params, model), transformer.param_shapes(model)
    )
    axes = transformer.logical_axes(model)
    places = sharding.param_shardings(mesh, axes, params, sharding.GATHERED_RULES)
    return _sharded_bytes(params, places)


def _cache(
    model: ModelConfig, mesh: Any, prompts: int, width: int, samples: int, columns: int
) -> int:
    """Keys and values of one device's prompts and of their samples."""

    def make():
        read = kv.empty(model, rows=prompts, columns=width)
        return kv.share(read, num_samples=samples, columns=columns).layers

    heads = mesh.shape["tensor"] if model.num_kv_heads % mesh.shape["tensor"] == 0 else 1
    return sum(map(liveness.nbytes, jax.tree.leaves(jax.eval_shape(make)))) // heads


def _stages(config: Any, shapes: batching.Shapes) -> dict[str, tuple[int, int]]:
    """{what is sampled: (completions per prompt, prompt columns)}."""
    with_prefix = shapes.prompt + shapes.completion
    stages = {
        "policy": (config.rollout.group_size, shapes.prompt),
        "evaluation": (config.eval.num_samples, shapes.prompt),
    }
    if config.method.name == "iop":
        stages["repairs"] = (config.iop.num_repairs, shapes.repair_prompt)
        if config.iop.audit == "continuation":
            stages["audit"] = (config.iop.audit_continuations, with_prefix)
        if config.iop.graft == "continue" and config.iop.num_edits:
            stages["grafts"] = (1, with_prefix)
    if config.locate.kind == "monte_carlo":
        most = max(config.locate.continuations, config.locate.retest)
        stages["first errors"] = (most, with_prefix)
    return stages


class _Traced:
    """Bytes that the run's programs need for moments on one device, from their jaxprs."""

    def __init__(self, config: Any, model: ModelConfig, mesh: Any):
        self.loss, self.temperature = config.loss, config.rollout.temperature
        self.model = _of_one_device(model, mesh.shape["tensor"])
        self.params = transformer.param_shapes(self.model)
        places = sharding.param_shardings(
            mesh, transformer.logical_axes(model), transformer.param_shapes(model)
        )
        # Outside of the layers, what has a parameter's shape (its gradient, a copy in another dtype) is split like it.
        whole = transformer.param_shapes(model)
        self.pieces = {
            mine.shape: math.prod(place.shard_shape(x.shape))
            for mine, x, place in zip(
                *(jax.tree.leaves(t) for t in (self.params, whole, places)), strict=True
            )
            if len(mine.shape) > 1
        }

        # The look-up of tokens reads the whole table, and "fsdp" splits it.
        embedding = whole["embedding"]
        spec = sharding.partition_spec(
            mesh, ("vocab", "embed"), embedding.shape, sharding.GATHERED_RULES
        )
        place = jax.sharding.NamedSharding(mesh, spec)
        is_split = mesh.shape["fsdp"] > 1
        self.table = _sharded_bytes(embedding, place) if is_split else 0

    def _size(self, aval: Any) -> int:
        shape = getattr(aval, "shape", None)
        if shape in self.pieces:
            return self.pieces[shape] * aval.dtype.itemsize
        return liveness.nbytes(aval)

    def _peak(self, function: Any, *arguments: Any) -> int:
        return liveness.peak_bytes(
            function, self.params, *arguments, size_fn=self._size, free_arguments=(0,)
        )

    def _hidden(self, params: Any, tokens: Any, token_mask: Any) -> Any:
        return transformer.forward(self.model, params, tokens, token_mask)[0]

    def update(self, rows: int, columns: int, first_column: int) -> int:
        """Loss and gradient of one microbatch."""
        loss = algos_update.make_microbatch_loss(
            self._hidden,
            transformer.head,
            loss_config=self.loss,
            temperature=self.temperature,
            first_column=first_column,
        )
        batch = batch_shapes(rows, columns)
        return self._peak(jax.grad(loss, has_aux=True), None, batch, batch.advantages)

    def forward(self, rows: int, columns: int, *, score: bool) -> int:
        """Hidden states, and with `score` the log-probs of all tokens."""

        def run(params, tokens, token_mask):
            hidden = self._hidden(params, tokens, token_mask)
            if not score:
                return hidden
            head, chunk = transformer.head(params), self.loss.vocab_chunk
            return losses.completion_logprobs(hidden, head, tokens, vocab_chunk=chunk)

        batch = batch_shapes(rows, columns)
        return self._peak(run, batch.tokens, batch.token_mask)


def _of_one_device(model: ModelConfig, tensor: int) -> ModelConfig:
    """The model with the heads and the MLP width that one of `tensor` devices has."""
    if model.num_heads % tensor == 0 and model.num_kv_heads % tensor == 0:
        heads = {
            "num_heads": model.num_heads // tensor,
            "num_kv_heads": model.num_kv_heads // tensor,
        }
        model = dataclasses.replace(model, **heads)
    if model.d_ff % tensor == 0:
        model = dataclasses.replace(model, d_ff=model.d_ff // tensor)
    if model.experts is not None and model.experts.d_ff % tensor == 0:
        experts = dataclasses.replace(model.experts, d_ff=model.experts.d_ff // tensor)
        model = dataclasses.replace(model, experts=experts)
    return model


def batch_shapes(rows: int, columns: int) -> TrainBatch:
    """A TrainBatch with ShapeDtypeStructs."""
    of = jax.ShapeDtypeStruct
    grid, row = of((rows, columns), jnp.float32), of((rows,), jnp.float32)
    mask, ids = of((rows, columns), jnp.bool_), of((rows, columns), jnp.int32)
    stream = of((rows,), jnp.int32)
    return TrainBatch(ids, mask, mask, grid, grid, None, row, stream, row, of((rows,), jnp.bool_))
