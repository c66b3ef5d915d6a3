"""Process reward model of Qwen2.5-Math-PRM: a reward in [0, 1] for each reasoning step.

Host side, except `Prm.apply` and `logits` (device side, jit-safe). Reads: a folder. Writes: the same.

The trunk is the policy's transformer; in place of the vocabulary stand two linear layers with a ReLU between them and
two classes, read at the token that ends each step, also the last one. A row is

    prompt, step, end, step, end, ..., step, end

with end = `<extra_0>` in the published models. A tiny tokenizer has no such token; there it is the step separator.

| file in a folder | holds |
| --- | --- |
| `config.json`, `model.safetensors`, `tokenizer.json` | as the published checkpoints do |
| `step_format.json` | the end token, and whether the question stands in a chat; missing: `<extra_0>`, a chat |
| `evaluation.json` | F1 on labelled solutions, from `train-prm`; missing: not evaluated |
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_reason import sharding
from jaxrl_reason.models import convert, families, json_files, pretrained, transformer
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.types import Params

STEP_END = "<extra_0>"
EVALUATION_FILE = "evaluation.json"
_FORMAT_FILE = "step_format.json"
_NUM_CLASSES = 2

# The conversation in which Qwen2.5-Math-PRM reads a solution, arXiv 2501.07301.
_CHAT_START = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    "<|im_start|>user\n"
)
_CHAT_ANSWER = "<|im_end|>\n<|im_start|>assistant\n"


@dataclasses.dataclass(frozen=True, eq=False)
class Prm:
    """A process reward model, ready to judge."""

    config: transformer.ModelConfig
    params: Params
    tokenizer: Any
    # (params, tokens [B, T], token_mask [B, T]) -> logits [B, T, 2] float32; class 1: right so far
    apply: Callable[[Params, Any, Any], Array]
    step_end: str = STEP_END  # one token
    chat: bool = True  # the question is a user turn; else the text that comes before the first step


def load_prm(folder: str | os.PathLike, *, dtype: str = "float32", mesh: Mesh | None = None) -> Prm:
    """A process reward model from a folder.

    Args:
      folder: written by `save_prm`, or a checkpoint with config.json (`Qwen2ForProcessRewardModel`), safetensors and
        tokenizer.json.
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
    if not is_prm(folder):
        if not pretrained.is_checkpoint(folder):
            raise FileNotFoundError(f"{folder}: no {pretrained.CONFIG_FILE}")
        name = pretrained.describe(folder).architecture
        raise ValueError(f"{folder}: is a {name}, not a {families.PRM_ARCHITECTURES[0]}")
    description = pretrained.describe(folder)
    # As if tied: the trunk has no head of its own here.
    config = dataclasses.replace(description.config, tied=True, dtype=dtype)
    description = dataclasses.replace(description, config=config)
    places = None if mesh is None else param_shardings(config, mesh)
    params, param_dtype = pretrained.read_params(
        folder, description, param_shapes(config), places, param_dtype=None
    )
    config = dataclasses.replace(config, param_dtype=param_dtype)
    tokenizer = pretrained.load_tokenizer(folder, config.vocab_size)
    step_end, chat = _read_format(folder)
    return Prm(config, params, tokenizer, _make_apply(config, mesh), step_end, chat)


def is_prm(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a process reward model.

    Raises:
      ValueError: its config.json is damaged, or of a model that is not supported.
    """
    folder = pathlib.Path(folder)
    return (
        pretrained.is_checkpoint(folder)
        and pretrained.describe(folder).architecture in families.PRM_ARCHITECTURES
    )


def _read_format(folder: pathlib.Path) -> tuple[str, bool]:
    path = folder / _FORMAT_FILE
    if not path.is_file():
        return STEP_END, True
    fields = json_files.read_object(path)
    step_end, chat = fields.get("step_end"), fields.get("chat")
    if not isinstance(step_end, str) or not isinstance(chat, bool):
        raise ValueError(f'{path}: must hold {{"step_end": text, "chat": true or false}}')
    return step_end, chat


def new_prm(
    policy: policies.Policy,
    key: Key[Array, ""],
    *,
    step_end: str,
    chat: bool,
    mesh: Mesh | None = None,
) -> Prm:
    """A policy's trunk under a fresh reward head, whose last layer starts at 0: every reward is 0.5.

    Args:
      policy: its output head is dropped.
      key: of the first layer's random weights.
      step_end: one token of the policy's tokenizer.
      chat: see `Prm`.
      mesh: where parameters are placed; None: where they are.
    Returns:
      Prm.
    Raises:
      ValueError: `step_end` is not one token.
    Example:
      >>> prm = new_prm(policies.load_policy("tiny"), jax.random.key(0), step_end=";", chat=False)
      >>> step_rewards(prm, "solve 3 8 :", ["1"])
      array([0.5], dtype=float32)
    """
    config = dataclasses.replace(policy.config, tied=True)
    head = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), param_shapes(config)["score"])
    inner = jax.random.normal(key, head["inner"].shape) * config.d_model**-0.5
    head["inner"] = inner.astype(head["inner"].dtype)
    trunk = {name: leaf for name, leaf in policy.params.items() if name != "head"}
    params = jax.tree.map(jnp.copy, trunk | {"score": head})
    if mesh is not None:
        params = jax.device_put(params, param_shardings(config, mesh))
    prm = Prm(config, params, policy.tokenizer, _make_apply(config, mesh), step_end, chat)
    end_id(prm)
    return prm


def save_prm(
    folder: str | os.PathLike, prm: Prm, evaluation: Mapping[str, Any] | None = None
) -> None:
    """Write a process reward model as a folder that `load_prm` reads; one that is there already is replaced.

    With several processes all must call this; the first one writes.

    Args:
      folder: made if it is missing.
      prm: its parameters may be split over any devices.
      evaluation: F1 and how it was measured; None: no record is written.
    Raises:
      ValueError: the folder holds something else, or the trunk is a mixture of experts.
    """
    folder = pathlib.Path(folder).absolute()
    if folder.is_dir() and any(folder.iterdir()) and not is_prm(folder):
        raise ValueError(f"{folder}: holds files but no process reward model; choose a new folder")
    fields = families.config_fields(prm.config, prm=True)
    params = sharding.to_host(prm.params)
    if jax.process_index() != 0:
        return
    files: dict[str, Any] = {
        pretrained.CONFIG_FILE: fields,
        _FORMAT_FILE: {"step_end": prm.step_end, "chat": prm.chat},
    }
    if evaluation is not None:
        files[EVALUATION_FILE] = dict(evaluation)

    def write(fresh: pathlib.Path) -> None:
        for name, contents in files.items():
            (fresh / name).write_text(json.dumps(contents, indent=2) + "\n")
        convert.write(fresh, prm.config, params)
        tokenizers.save(prm.tokenizer, fresh)

    policies.replace_folder(folder, write)


# --- parameters and forward pass -------------------------------------------------------------------

_HEAD_AXES = {
    "inner": ("embed", "mlp"),
    "inner_bias": ("mlp",),
    "outer": ("mlp", None),
    "outer_bias": (None,),
}


def param_shapes(config: transformer.ModelConfig) -> Params:
    """Tree of ShapeDtypeStructs: the trunk's, and `score`, the reward head."""
    D, dtype = config.d_model, jnp.dtype(config.param_dtype)
    head = {
        "inner": (D, D),
        "inner_bias": (D,),
        "outer": (D, _NUM_CLASSES),
        "outer_bias": (_NUM_CLASSES,),
    }
    score = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in head.items()}
    return transformer.param_shapes(config) | {"score": score}


def param_shardings(config: transformer.ModelConfig, mesh: Mesh) -> Params:
    """Where each parameter lives on a mesh."""
    axes = transformer.logical_axes(config) | {"score": _HEAD_AXES}
    return sharding.param_shardings(mesh, axes, param_shapes(config))


def logits(
    config: transformer.ModelConfig,
    params: Params,
    tokens: Int[Array | np.ndarray, "B T"],
    token_mask: Bool[Array | np.ndarray, "B T"],
    *,
    mesh: Mesh | None = None,
) -> Float[Array, "B T classes"]:
    """relu(hidden W1 + b1) W2 + b2, float32; only those at step ends mean something. Class 1: right so far."""
    trunk = {name: leaf for name, leaf in params.items() if name != "score"}
    head = jax.tree.map(lambda x: x.astype(config.dtype), params["score"])
    hidden, _ = transformer.forward(config, trunk, tokens, token_mask, mesh=mesh)
    inner = jax.nn.relu(hidden @ head["inner"] + head["inner_bias"][None, None])
    return (inner @ head["outer"] + head["outer_bias"][None, None]).astype(jnp.float32)


def _make_apply(config: transformer.ModelConfig, mesh: Mesh | None) -> Callable:
    return jax.jit(lambda params, tokens, mask: logits(config, params, tokens, mask, mesh=mesh))


# --- rows ------------------------------------------------------------------------------------------


def end_id(prm: Prm) -> int:
    """Id of the token that ends a step.

    Raises:
      ValueError: the tokenizer has no such token.
    """
    end = prm.tokenizer.get_vocab().get(prm.step_end)
    if end is None:
        raise ValueError(
            f"the tokenizer has no {prm.step_end}; it is not that of a process reward model"
        )
    return end


def question_ids(prm: Prm, question: str) -> list[int]:
    """Ids of all that stands before the first step.

    Args:
      prm: says whether the question is a turn of a chat.
      question: special tokens spelt out in it are plain text.
    Returns:
      Ids; with BOS where the tokenizer puts one and there is no chat.
    """
    if not prm.chat:
        return tokenizers.encode_prompt(prm.tokenizer, question)
    start, answer = (
        prm.tokenizer.encode(text, add_special_tokens=False) for text in (_CHAT_START, _CHAT_ANSWER)
    )
    return start + _plain(prm, question) + answer


def step_row(
    prm: Prm, question: Sequence[int], steps: Sequence[str], max_tokens: int | None = None
) -> tuple[list[int], list[int]]:
    """Ids of a solution, and the places of its step ends.

    Args:
      prm: from `load_prm`.
      question: ids before the first step.
      steps: texts; special tokens spelt out in them are plain text.
      max_tokens: steps that end behind so many are left out; None: no limit.
    Returns:
      (ids, places): places[m] is where step m ends; there are fewer places than steps where some were left out.
    Example:
      >>> prm = new_prm(policies.load_policy("tiny"), jax.random.key(0), step_end=";", chat=False)
      >>> step_row(prm, [111], ["3 8", "1"], max_tokens=5)
      ([111, 3, 8, 103], [3])
    """
    end, ids, places = end_id(prm), list(question), []
    for step in steps:
        more = [*_plain(prm, step), end]
        if max_tokens is not None and len(ids) + len(more) > max_tokens:
            break
        ids += more
        places.append(len(ids) - 1)
    return ids, places


def _plain(prm: Prm, text: str) -> list[int]:
    return prm.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def step_rewards(prm: Prm, prompt: str, steps: Sequence[str]) -> Float[np.ndarray, " S"]:
    """Probability that each step is right: softmax(logits at the step's end)[1].

    For one solution; `rollout.step_scores` scores many.

    Args:
      prm: from `load_prm`.
      prompt: the question, see `question_ids`.
      steps: S texts; special tokens spelt out in them are plain text.
    Returns:
      [S] float32 in [0, 1].
    Raises:
      ValueError: the tokenizer has no token that ends a step, or there are no steps.
    """
    if not steps:
        raise ValueError("steps: must hold at least one text")
    ids, places = step_row(prm, question_ids(prm, prompt), steps)
    tokens = np.asarray([ids], np.int32)
    out = prm.apply(prm.params, tokens, np.ones(tokens.shape, bool))
    return right_probability(np.asarray(out[0])[places])


def right_probability(step_logits: np.ndarray) -> np.ndarray:
    """softmax over two classes, class 1, in float32: 1 / (1 + exp(l0 - l1)).

    Example:
      >>> right_probability(np.array([[0.0, 0.0], [-2000.0, 2000.0]], np.float32))
      array([0.5, 1. ], dtype=float32)
    """
    difference = np.asarray(step_logits[..., 1] - step_logits[..., 0], np.float32)
    return (0.5 * (1 + np.tanh(0.5 * difference))).astype(np.float32)
