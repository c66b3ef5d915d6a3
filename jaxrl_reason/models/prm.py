"""Process reward model of Qwen2.5-Math-PRM: a reward in [0, 1] for each reasoning step.

Host side, except `Prm.apply` (device side, jit-safe). Reads: a Hugging Face folder. Writes: nothing.

The trunk is the policy's transformer; in place of the vocabulary stand two linear layers with a ReLU between them and
two classes, read at the token `<extra_0>` that ends each step.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from jaxrl_reason import sharding
from jaxrl_reason.models import families, pretrained, transformer
from jaxrl_reason.types import Params

STEP_END = "<extra_0>"
_NUM_CLASSES = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Prm:
    """A process reward model, ready to judge."""

    config: transformer.ModelConfig
    params: Params
    tokenizer: Any
    # (params, tokens [B, T], token_mask [B, T]) -> logits [B, T, 2] float32; class 1: right so far
    apply: Callable[[Params, Any, Any], Array]


def load_prm(folder: str | os.PathLike, *, dtype: str = "float32", mesh: Mesh | None = None) -> Prm:
    """A process reward model from a checkpoint folder.

    Args:
      folder: with config.json (`Qwen2ForProcessRewardModel`), safetensors and tokenizer.json.
      dtype: compute dtype, float32 or bfloat16. Parameters keep the dtype they have.
      mesh: where parameters are placed; None: the default device.
    Returns:
      Prm.
    Raises:
      FileNotFoundError: a file is missing.
      ValueError: the folder holds another kind of model, or files that do not fit together.

    Source: Qwen2.5-Math-PRM, arXiv 2501.07301.
    """
    folder = pathlib.Path(folder)
    if not pretrained.is_checkpoint(folder):
        raise FileNotFoundError(f"{folder}: no {pretrained.CONFIG_FILE}")
    description = pretrained.describe(folder)
    if description.architecture != families.PRM_ARCHITECTURE:
        raise ValueError(
            f"{folder}: is a {description.architecture}, not a {families.PRM_ARCHITECTURE}"
        )
    # As if tied: the trunk has no head of its own here.
    config = dataclasses.replace(description.config, tied=True, dtype=dtype)
    description = dataclasses.replace(description, config=config)
    shapes = transformer.param_shapes(config) | {"score": _head_shapes(config)}
    shardings = None
    if mesh is not None:
        axes = transformer.logical_axes(config) | {"score": _HEAD_AXES}
        shardings = sharding.param_shardings(mesh, axes, shapes)
    params, param_dtype = pretrained.read_params(
        folder, description, shapes, shardings, param_dtype=None
    )
    config = dataclasses.replace(config, param_dtype=param_dtype)
    tokenizer = pretrained.load_tokenizer(folder, config.vocab_size)
    return Prm(config, params, tokenizer, _make_apply(config, mesh))


_HEAD_AXES = {
    "inner": ("embed", "mlp"),
    "inner_bias": ("mlp",),
    "outer": ("mlp", None),
    "outer_bias": (None,),
}


def _head_shapes(config: transformer.ModelConfig) -> Params:
    D, dtype = config.d_model, jnp.dtype(config.param_dtype)
    shapes = {
        "inner": (D, D),
        "inner_bias": (D,),
        "outer": (D, _NUM_CLASSES),
        "outer_bias": (_NUM_CLASSES,),
    }
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in shapes.items()}


def _make_apply(config: transformer.ModelConfig, mesh: Mesh | None) -> Callable:
    def apply(
        params: Params,
        tokens: Int[Array | np.ndarray, "B T"],
        token_mask: Bool[Array | np.ndarray, "B T"],
    ) -> Float[Array, "B T classes"]:
        trunk = {name: leaf for name, leaf in params.items() if name != "score"}
        head = jax.tree.map(lambda x: x.astype(config.dtype), params["score"])
        hidden, _ = transformer.forward(config, trunk, tokens, token_mask, mesh=mesh)
        inner = jax.nn.relu(hidden @ head["inner"] + head["inner_bias"][None, None])
        logits = inner @ head["outer"] + head["outer_bias"][None, None]
        return logits.astype(jnp.float32)

    return jax.jit(apply)


def step_rewards(prm: Prm, prompt: str, steps: Sequence[str]) -> Float[np.ndarray, " S"]:
    """Probability that each step is right: softmax(logits at the step's `<extra_0>`)[1].

    Args:
      prm: from `load_prm`.
      prompt: system text, question and all else before the first step, as the model is to read it; its special
        tokens are read as such, so never put a model's text here.
      steps: S texts; special tokens spelt out in them are plain text.
    Returns:
      [S] float32 in [0, 1].
    Raises:
      ValueError: the tokenizer has no `<extra_0>`, or there are no steps.
    """
    tokenizer = prm.tokenizer
    end = tokenizer.get_vocab().get(STEP_END)
    if end is None:
        raise ValueError(
            f"the tokenizer has no {STEP_END}; it is not that of a process reward model"
        )
    if not steps:
        raise ValueError("steps: must hold at least one text")
    ids, ends = tokenizer.encode(prompt, add_special_tokens=False), []
    for step in steps:
        ids += tokenizer.encode(step, add_special_tokens=False, split_special_tokens=True)
        ends.append(len(ids))
        ids.append(end)
    tokens = np.asarray([ids], np.int32)
    logits = prm.apply(prm.params, tokens, np.ones(tokens.shape, bool))
    return np.asarray(jax.nn.softmax(logits[0], axis=-1)[np.asarray(ends), 1])
