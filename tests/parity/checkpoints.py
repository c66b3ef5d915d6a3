"""Small random checkpoints of every family, made by `transformers`, and what PyTorch computes with them.

Needs the `parity` extra. Reads: nothing. Writes: the folder that it is given.
"""

from __future__ import annotations

import copy
import json
import pathlib

import numpy as np
import torch
import transformers

_SIZES = {
    "vocab_size": 128,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 111,
    "eos_token_id": 112,
    "pad_token_id": 110,
}
_HEADS = {"head_dim": 8}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 100.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_PLAIN = {"rope_type": "default", "rope_theta": 100.0}

# Name -> (architecture, fields of its config).
CASES = {
    "qwen2": ("Qwen2ForCausalLM", {"tie_word_embeddings": True, "rope_parameters": _PLAIN}),
    "qwen3": (
        "Qwen3ForCausalLM",
        {**_HEADS, "tie_word_embeddings": True, "rope_parameters": _PLAIN},
    ),
    "qwen3_yarn": ("Qwen3ForCausalLM", {**_HEADS, "rope_parameters": _YARN}),
    "llama3": ("LlamaForCausalLM", {"rope_parameters": _LLAMA3}),
    "llama_linear": (
        "LlamaForCausalLM",
        {**_HEADS, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}},
    ),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        {
            **_HEADS,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "norm_topk_prob": True,
            "rope_parameters": _PLAIN,
        },
    ),
    # Two periods, so that layers of one stack are not neighbours; more values than keys, and a few channels rotated.
    "qwen3_next": (
        "Qwen3NextForCausalLM",
        {
            **_HEADS,
            "num_hidden_layers": 4,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 4,
            "linear_value_head_dim": 6,
            "linear_conv_kernel_dim": 4,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "shared_expert_intermediate_size": 8,
            "norm_topk_prob": True,
            "rope_parameters": {**_PLAIN, "partial_rotary_factor": 0.5},
        },
    ),
    "qwen2_prm": ("Qwen2ForProcessRewardModel", {"rope_parameters": _PLAIN}),
}
MANY_FILES = "qwen3"  # the case that is split over several files


class Prm(torch.nn.Module):
    """Qwen2 with the reward head of Qwen2.5-Math-PRM, which transformers itself does not have."""

    def __init__(self, config: transformers.PreTrainedConfig):
        super().__init__()
        self.config = config
        self.model = transformers.Qwen2Model(config)
        width = config.hidden_size
        self.score = torch.nn.Sequential(
            torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 2)
        )


def make_model(name: str, seed: int = 0, **changes: int) -> torch.nn.Module:
    """The float32 model of a case, all its parameters random and bfloat16 numbers; `changes` go to its config."""
    architecture, fields = CASES[name]
    prm = architecture == "Qwen2ForProcessRewardModel"
    kind = "Qwen2ForCausalLM" if prm else architecture
    config_class = getattr(transformers, kind.replace("ForCausalLM", "Config"))
    config = config_class(**(_SIZES | fields | changes))
    model = Prm(config) if prm else getattr(transformers, kind)(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            # Norms stay near 1, or 0 where they count from there; matrices large enough that every part matters.
            plain = architecture != "Qwen3NextForCausalLM" or "linear_attn" in path
            shift = 1.0 if "norm" in path and plain else 0.0
            drawn = shift + 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn.bfloat16().float())
    return model.eval()


def save(model: torch.nn.Module, name: str, folder: pathlib.Path) -> None:
    """Write a model as its family's checkpoints are, weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Prm):
        from safetensors.torch import save_file

        fields = model.config.to_dict() | {"architectures": ["Qwen2ForProcessRewardModel"]}
        (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
        tensors = {path: x.bfloat16() for path, x in model.state_dict().items()}
        # The published checkpoints carry a head that nothing reads.
        tensors["lm_head.weight"] = torch.zeros(1, 1, dtype=torch.bfloat16)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    # A copy: rounded with the rest, the rotary frequencies would not come back.
    copy.deepcopy(model).bfloat16().save_pretrained(
        folder, max_shard_size="6KB" if name == MANY_FILES else "5GB"
    )


def ragged_batch(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [4, 20] and mask: padding on the left, on the right, on both sides, and none."""
    tokens = np.random.default_rng(seed).integers(0, 110, (4, 20))
    mask = np.ones(tokens.shape, bool)
    mask[0, :7], mask[1, 15:], mask[2, :3], mask[2, 16:] = False, False, False, False
    return tokens, mask


@torch.no_grad()
def logits(model: torch.nn.Module, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[B, T, V] (or [B, T, 2]) float32, each row computed alone, without its padding; 0 on padding."""
    rows = []
    for row, real in zip(tokens, mask, strict=True):
        ids = torch.as_tensor(row[real])[None]
        if isinstance(model, Prm):
            out = model.score(model.model(input_ids=ids).last_hidden_state)
        else:
            out = model(input_ids=ids).logits
        full = np.zeros((len(row), out.shape[-1]), np.float32)
        full[real] = out[0].float().numpy()
        rows.append(full)
    return np.stack(rows)


@torch.no_grad()
def greedy(model: torch.nn.Module, prompt: np.ndarray, num_tokens: int) -> np.ndarray:
    """[num_tokens] likeliest continuation, EOS or not."""
    ids = list(map(int, prompt))
    for _ in range(num_tokens):
        ids.append(int(model(input_ids=torch.as_tensor([ids])).logits[0, -1].argmax()))
    return np.asarray(ids[len(prompt) :])
