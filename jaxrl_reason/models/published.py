"""Shapes of published checkpoints, so that a run can be planned before its weights are here.

Host side. Reads: nothing. Writes: nothing.

Source: what each model's config.json on the Hugging Face Hub says. Qwen3-4B, Qwen3-32B and Qwen2.5-32B were compared
with quotes of it in public repositories; the others are checked by their parameter counts alone, in a test.
Only what shapes and memory depend on is kept: training and sampling read the checkpoint's own file.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

_QWEN2_5 = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "max_position_embeddings": 131_072,
    "rope_theta": 1_000_000.0,
}
_QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "max_position_embeddings": 40_960,
    "rope_theta": 1_000_000.0,
}


def _sizes(width: int, mlp: int, layers: int, heads: int, *, tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "tie_word_embeddings": tied,
    }


# Name of the checkpoint -> fields of its config.json.
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "Qwen2.5-1.5B": _QWEN2_5
    | _sizes(1536, 8960, 28, 12, tied=True)
    | {"vocab_size": 151_936, "num_key_value_heads": 2},
    "Qwen2.5-7B": _QWEN2_5
    | _sizes(3584, 18_944, 28, 28, tied=False)
    | {"vocab_size": 152_064, "num_key_value_heads": 4},
    "Qwen2.5-32B": _QWEN2_5
    | _sizes(5120, 27_648, 64, 40, tied=False)
    | {"vocab_size": 152_064, "num_key_value_heads": 8, "rms_norm_eps": 1e-5},
    "Qwen3-0.6B": _QWEN3 | _sizes(1024, 3072, 28, 16, tied=True),
    "Qwen3-4B": _QWEN3 | _sizes(2560, 9728, 36, 32, tied=True),
    "Qwen3-8B": _QWEN3 | _sizes(4096, 12_288, 36, 32, tied=False),
    "Qwen3-32B": _QWEN3 | _sizes(5120, 25_600, 64, 64, tied=False),
    "Qwen3-Next-80B-A3B": {
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "vocab_size": 151_936,
        "head_dim": 256,
        "num_key_value_heads": 2,
        "max_position_embeddings": 262_144,
        "rope_theta": 10_000_000.0,
        "partial_rotary_factor": 0.25,
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "norm_topk_prob": True,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
    }
    | _sizes(2048, 5120, 48, 16, tied=False),
}
# What distinguishes checkpoints of one shape.
_ENDINGS = ("-Base", "-Instruct", "-Thinking")


def find(source: str) -> Mapping[str, Any] | None:
    """Fields of the config.json of the checkpoint that a path or hub id names; None: not known.

    Example:
      >>> find("Qwen/Qwen3-8B-Base")["num_hidden_layers"], find("mine")
      (36, None)
    """
    name = pathlib.PurePath(source).name
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return PUBLISHED.get(name)
