"""Low-rank adapters: W x + alpha / rank * B A x, with W frozen; where they go, apart from the base, merged, as PEFT.

Host side, except `split` and `join` (jit-safe). Reads: nothing. Writes: an adapter folder. Source: LoRA, arXiv
2106.09685 eq. 3; initial values as in its section 4.1 and in PEFT: A uniform, B zero.

The adapters of weight `wq` are two parameters beside it, `wq_lora_a` [in, rank] and `wq_lora_b` [rank, out], stacked
over layers as it is. `layers` adds (x A) B to x W, so that sampler and trainer run one forward pass and no merged copy
of the weights is ever made. With B = 0 the model is the base bit for bit: base and first adapters serve as reference
policy, with the same compiled programs.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax.sharding import Mesh
from jaxtyping import Array, Key

from jaxrl_reason import sharding
from jaxrl_reason.models import convert, layers, tensor_names, transformer
from jaxrl_reason.models.model_config import LoraConfig, ModelConfig
from jaxrl_reason.types import Params

_A, _B = layers.ADAPTER_SUFFIXES
_PEFT_FILE = "adapter_model.safetensors"


def resolve_targets(config: ModelConfig, patterns: str) -> tuple[str, ...]:
    """Weights of the layers that patterns name.

    Args:
      config: of the base.
      patterns: shell patterns over names like "attention.wq" and "mlp.up", with commas between them.
    Returns:
      Names, sorted.
    Raises:
      ValueError: a pattern matches nothing that can have an adapter, or experts.
    Example:
      >>> resolve_targets(transformer.PRESETS["tiny"], "attention.w[qv],mlp.up")
      ('attention.wq', 'attention.wv', 'mlp.up')
    """
    names = {path.removeprefix("layers.") for path, _ in convert.flat(_shapes(config))}
    adaptable = sorted(n for n in names if n.rpartition(".")[2] in layers.ADAPTER_AXES)
    found: set[str] = set()
    for pattern in patterns.split(","):
        matched = fnmatch.filter(adaptable, pattern.strip())
        if not matched:
            raise ValueError(
                f"lora.targets = {patterns!r}: {pattern.strip()!r} matches no weight;"
                f" there are {', '.join(adaptable)}"
            )
        experts = [name for name in matched if config.experts is not None and "mlp." in name]
        if experts:
            raise ValueError(
                f"lora.targets = {patterns!r}: {', '.join(experts)} belong to experts, which get no adapters;"
                " set it to 'attention.*'"
            )
        found |= set(matched)
    return tuple(sorted(found))


def attach(
    config: ModelConfig,
    params: Params,
    *,
    rank: int,
    alpha: float,
    targets: str,
    key: Key[Array, ""],
    mesh: Mesh | None = None,
) -> tuple[ModelConfig, Params]:
    """Base with fresh adapters, which change nothing yet.

    Args:
      config: of the base.
      params: of the base; its arrays are shared, not copied.
      rank: of the adapters, >= 1.
      alpha: > 0; the adapters' part is scaled by alpha / rank.
      targets: see `resolve_targets`.
      key: of A; B is zero.
      mesh: where adapters are placed; None: the default device.
    Returns:
      (config with `lora`, parameters with adapters in float32).
    Raises:
      ValueError: bad targets, or the model has adapters already.
    Example:
      >>> config = transformer.PRESETS["tiny"]
      >>> base = transformer.init_params(config, jax.random.key(0))
      >>> config, params = attach(config, base, rank=2, alpha=4.0, targets="mlp.up", key=jax.random.key(1))
      >>> params["layers"]["mlp"]["up_lora_a"].shape, params["layers"]["mlp"]["up_lora_b"].shape
      ((5, 64, 2), (5, 2, 128))
    """
    if config.lora is not None:
        raise ValueError("the model has adapters already; merge them first")
    lora = LoraConfig(rank, float(alpha), resolve_targets(config, targets))
    config = dataclasses.replace(config, lora=lora)

    def fresh(key):
        return split(transformer.init_params(config, key))[1]

    places = None if mesh is None else _adapter_shardings(config, mesh)
    return config, join(params, jax.jit(fresh, out_shardings=places)(key))


def _shapes(config: ModelConfig) -> Params:
    return transformer.param_shapes(config)


def _adapter_shardings(config: ModelConfig, mesh: Mesh) -> Params:
    axes, shapes = split(transformer.logical_axes(config))[1], split(_shapes(config))[1]
    return sharding.param_shardings(mesh, axes, shapes)


def split(params: Params) -> tuple[Params, Params]:
    """(base, adapters) of a tree with both; also of trees of shapes, shardings and axis names."""
    parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for path, leaf in convert.flat(params):
        parts[path.endswith((_A, _B))][path] = leaf
    return convert.nest(parts[0]), convert.nest(parts[1])


def join(base: Params, adapters: Params) -> Params:
    """Base with adapters, in place of those that it may have; no array is copied.

    Example:
      >>> join({"up": 1, "up_lora_a": 2}, {"up_lora_a": 3})
      {'up': 1, 'up_lora_a': 3}
    """
    return convert.nest(dict(convert.flat(base)) | dict(convert.flat(adapters)))


def trainable(config: ModelConfig, params: Params) -> Params:
    """What the optimizer moves: the adapters where there are any, else everything."""
    return params if config.lora is None else split(params)[1]


def whole(config: ModelConfig, base: Params, trained: Params) -> Params:
    """Inverse of `trainable`: parameters that the model can run with."""
    return trained if config.lora is None else join(base, trained)


def merge(config: ModelConfig, params: Params) -> tuple[ModelConfig, Params]:
    """Model without adapters: W + alpha / rank * A B, computed in float32, in the dtype of W.

    Args:
      config: with or without `lora`.
      params: device or host arrays; one weight at a time is made anew.
    Returns:
      (config without `lora`, parameters without adapters, of the kind that they were).
    Example:
      >>> config = transformer.PRESETS["tiny"]
      >>> base = transformer.init_params(config, jax.random.key(0))
      >>> adapted = attach(config, base, rank=2, alpha=4.0, targets="mlp.up", key=jax.random.key(1))
      >>> merged_config, merged = merge(*adapted)
      >>> merged_config == config, bool((merged["layers"]["mlp"]["up"] == base["layers"]["mlp"]["up"]).all())
      (True, True)
    """
    if config.lora is None:
        return config, params
    leaves = dict(convert.flat(split(params)[0]))
    adapters = dict(convert.flat(split(params)[1]))
    for name in config.lora.targets:
        path = f"layers.{name}"
        a, b = adapters[path + _A], adapters[path + _B]
        if isinstance(leaves[path], jax.Array):
            leaves[path] = _merged(leaves[path], a, b, config.lora.scale)
        else:
            change = np.matmul(a, b).reshape(leaves[path].shape) * np.float32(config.lora.scale)
            leaves[path] = (leaves[path].astype(np.float32) + change).astype(leaves[path].dtype)
    return dataclasses.replace(config, lora=None), convert.nest(leaves)


@functools.partial(jax.jit, static_argnums=3)
def _merged(weight: Array, a: Array, b: Array, scale: float) -> Array:
    change = scale * jnp.matmul(a, b, precision="highest").reshape(weight.shape)
    return (weight.astype(jnp.float32) + change).astype(weight.dtype)


def write_peft(folder: pathlib.Path, config: ModelConfig, params: Params, base: str) -> None:
    """Write the adapters as a folder of PEFT, which `transformers` loads on top of the base.

    Args:
      folder: exists.
      config: with `lora`.
      params: host arrays, with adapters.
      base: folder or hub id of the base, for its reader.
    Raises:
      ValueError: the model has no adapters.
    """
    if config.lora is None:
        raise ValueError("the policy has no adapters; export it without --adapters")
    tensors, modules = {}, set()
    for path, leaf in convert.flat(split(params)[1]):
        suffix, part = (_A, "lora_A") if path.endswith(_A) else (_B, "lora_B")
        name = tensor_names.tensor_name(path.removesuffix(suffix), config)
        for (layer,) in np.ndindex(leaf.shape[0]):
            module = name.format((layer,)).removesuffix(".weight")
            modules.add(module.rpartition(".")[2])
            tensor = f"base_model.model.{module}.{part}.weight"
            tensors[tensor] = np.ascontiguousarray(leaf[layer].T)
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.lora.rank,
        "lora_alpha": config.lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(modules),
    }
    (folder / "adapter_config.json").write_text(json.dumps(fields, indent=2) + "\n")
    safetensors.numpy.save_file(tensors, folder / _PEFT_FILE, metadata={"format": "pt"})
