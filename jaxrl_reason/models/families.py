"""Families of Hugging Face checkpoints: what their config.json means for us.

Host side. Reads: the contents of a config.json. Writes: nothing.

A family is a row of `FAMILIES` and the `tensor_names` that its switches need; there is one transformer. Every
field of a config.json is either read, or known not to change the result, or an error.

| architecture | switches |
| --- | --- |
| LlamaForCausalLM, LlamaForProcessRewardModel | none |
| Qwen2ForCausalLM, Qwen2ForProcessRewardModel | `qkv_bias` |
| Qwen3ForCausalLM, Qwen3ForProcessRewardModel | `qk_norm` |
| Qwen3MoeForCausalLM | `qk_norm`, `experts` |
| Qwen3NextForCausalLM | `qk_norm`, `experts` with a shared one, `delta`, `attention_gate`, `centred_norms` |
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

from jaxrl_reason.models import json_files
from jaxrl_reason.models.model_config import (
    DeltaConfig,
    ExpertsConfig,
    ModelConfig,
    RopeScaling,
)
from jaxrl_reason.models.tensor_names import NEXT_ARCHITECTURE, PRM_ARCHITECTURES


@dataclasses.dataclass(frozen=True)
class Family:
    """One architecture of `transformers`."""

    model_type: str
    qk_norm: bool = False
    qkv_bias: bool = False
    experts: bool = False
    delta: bool = False  # and with it a gate after attention, centred norms, a shared expert, part-rotated heads
    head_dim: int | None = None  # where config.json does not say; None: hidden_size / heads

    @property
    def switches(self) -> tuple[bool, ...]:
        """As `_switches` of a model of this family."""
        return (self.qk_norm, self.qkv_bias, self.experts, *(self.delta,) * 4)


FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family("llama"),
    "Qwen2ForCausalLM": Family("qwen2", qkv_bias=True),
    "Qwen3ForCausalLM": Family("qwen3", qk_norm=True, head_dim=128),
    "Qwen3MoeForCausalLM": Family("qwen3_moe", qk_norm=True, experts=True),
    NEXT_ARCHITECTURE: Family("qwen3_next", qk_norm=True, experts=True, delta=True, head_dim=256),
    "Qwen2ForProcessRewardModel": Family("qwen2", qkv_bias=True),
    "Qwen3ForProcessRewardModel": Family("qwen3", qk_norm=True, head_dim=128),
    "LlamaForProcessRewardModel": Family("llama"),
}


# Fields that describe, or that are read elsewhere, or that act in another program's training alone.
_HARMLESS = frozenset(
    "architectures auto_map bos_token_id dtype eos_token_id id2label initializer_range label2id"
    " max_window_layers model_type name_or_path num_labels output_attentions output_hidden_states"
    " output_router_logits pad_token_id problem_type return_dict router_aux_loss_coef sliding_window"
    " torch_dtype transformers_version use_cache".split()
)
# Fields that must have one of these values, since no other is supported.
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "attention_dropout": (0.0, None),
    "decoder_sparse_step": (1,),
    "hidden_act": ("silu",),
    "is_encoder_decoder": (False,),
    "chunk_size_feed_forward": (0,),
    "mlp_bias": (False,),
    "mlp_only_layers": ([], None),
    "pretraining_tp": (1, None),
    "quantization_config": (None,),
    "use_sliding_window": (False,),
}
_REQUIRED = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "num_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
}
_OPTIONAL = (
    "head_dim layer_types max_position_embeddings num_key_value_heads partial_rotary_factor rms_norm_eps"
    " rope_parameters rope_scaling rope_theta tie_word_embeddings"
).split()
_EXPERT_FIELDS = {
    "top_k": "num_experts_per_tok",
    "d_ff": "moe_intermediate_size",
    "normalise": "norm_topk_prob",
}
_DELTA_FIELDS = {
    "num_key_heads": "linear_num_key_heads",
    "num_value_heads": "linear_num_value_heads",
    "key_dim": "linear_key_head_dim",
    "value_dim": "linear_value_head_dim",
    "conv_width": "linear_conv_kernel_dim",
}
_SHARED_WIDTH, _INTERVAL = "shared_expert_intermediate_size", "full_attention_interval"
_LINEAR, _FULL = "linear_attention", "full_attention"
# Kinds of values, and the largest of those that are sizes: no model comes near it, and arrays of more would be asked
# for before anything else is seen to be wrong.
_SIZES: Mapping[str, int] = {
    "vocab_size": 1 << 24,
    "num_hidden_layers": 10_000,
    "hidden_size": 1 << 20,
    "num_attention_heads": 1 << 16,
    "num_key_value_heads": 1 << 16,
    "head_dim": 1 << 16,
    "intermediate_size": 1 << 24,
    "max_position_embeddings": 1 << 31,
    "num_experts": 1 << 16,
    "num_local_experts": 1 << 16,
    "num_experts_per_tok": 1 << 16,
    "moe_intermediate_size": 1 << 24,
    "linear_num_key_heads": 1 << 16,
    "linear_num_value_heads": 1 << 16,
    "linear_key_head_dim": 1 << 16,
    "linear_value_head_dim": 1 << 16,
    "linear_conv_kernel_dim": 1 << 16,
    "full_attention_interval": 10_000,
    "shared_expert_intermediate_size": 1 << 24,
    "original_max_position_embeddings": 1 << 31,
}
_NUMBERS = ("rms_norm_eps", "rope_theta", "partial_rotary_factor")
_FLAGS = ("norm_topk_prob", "tie_word_embeddings")
# Keys of a RoPE record: those that must be there, those that may.
_ROPE_KEYS: Mapping[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "llama3": (
        {"factor", "low_freq_factor", "high_freq_factor"},
        {"original_max_position_embeddings"},
    ),
    "yarn": (
        {"factor"},
        {
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        },
    ),
}


def architecture_of(fields: Mapping[str, Any]) -> str:
    """The architecture that a config.json names.

    Raises:
      ValueError: none, several, or an unknown one.
    """
    names = fields.get("architectures") or []
    if not isinstance(names, list) or len(names) != 1 or names[0] not in list(FAMILIES):
        texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
        found = (", ".join(names)[:200] or "none") if texts else json_files.shown(names)
        raise ValueError(f"architectures = {found}: must be one of {', '.join(FAMILIES)}")
    return names[0]


def model_config(fields: Mapping[str, Any]) -> ModelConfig:
    """The model that a config.json describes; parameters and compute in float32.

    Args:
      fields: contents of config.json.
    Returns:
      ModelConfig.
    Raises:
      ValueError: with one line per field that is missing, unknown or not supported.
    """
    family = FAMILIES[architecture_of(fields)]
    if problems := _type_problems(fields):
        raise ValueError(_lines(problems))
    problems = _field_problems(fields, family)
    rope_problems, theta, scaling = _read_rope(fields)
    if problems + rope_problems:
        raise ValueError(_lines(problems + rope_problems))
    heads, width = fields["num_attention_heads"], fields["hidden_size"]
    experts = delta = None
    if family.experts:
        values = {ours: fields[theirs] for ours, theirs in _EXPERT_FIELDS.items()}
        shared = fields[_SHARED_WIDTH] if family.delta else 0
        experts = ExpertsConfig(num_experts=_num_experts(fields), shared_d_ff=shared, **values)
    if family.delta:
        values = {ours: fields[theirs] for ours, theirs in _DELTA_FIELDS.items()}
        delta = DeltaConfig(period=_period(fields), **values)
    return ModelConfig(
        **{ours: fields[theirs] for ours, theirs in _REQUIRED.items()},
        num_kv_heads=fields.get("num_key_value_heads") or heads,
        head_dim=fields.get("head_dim") or family.head_dim or width // heads,
        rope_theta=theta,
        rms_eps=float(fields.get("rms_norm_eps", 1e-6)),
        tied=bool(fields.get("tie_word_embeddings", False)),
        qk_norm=family.qk_norm,
        qkv_bias=family.qkv_bias,
        attention_gate=family.delta,
        centred_norms=family.delta,
        rotary_fraction=_rotary_fraction(fields, family),
        rope_scaling=scaling,
        experts=experts,
        delta=delta,
        max_positions=fields.get("max_position_embeddings", 32_768),
    )


def _lines(problems: list[str]) -> str:
    return "cannot run this model:\n" + "\n".join(f"  {p}" for p in problems)


def _type_problems(fields: Mapping[str, Any]) -> list[str]:
    """What is of another type than every model has there, or of a size that none has."""
    problems = []

    def look(name: str, value: Any, where: str = "") -> None:
        if name in _SIZES:
            least = 0 if name == "shared_expert_intermediate_size" else 1
            said = json_files.problem_of(value, "int", least=least, most=_SIZES[name])
        elif name in _FLAGS or name == "truncate":
            said = json_files.problem_of(value, "bool")
        elif name in ("model_type", "rope_type", "type"):
            said = json_files.problem_of(value, "str")
        elif name in _NUMBERS or where:
            said = json_files.problem_of(value, "float")
        else:
            return
        if said:
            problems.append(f"{where}{name} = {json_files.shown(value)}: {said}")

    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        look(name, value)
    for where in ("rope_parameters", "rope_scaling"):
        record = given.get(where, {})
        if not isinstance(record, dict):
            problems.append(f"{where} = {json_files.shown(record)}: must be an object")
            continue
        known = {
            "rope_type",
            "type",
            *_NUMBERS,
            *itertools.chain(*itertools.chain(*_ROPE_KEYS.values())),
        }
        for name in record.keys() & known:
            if record[name] is not None:
                look(name, record[name], f"{where}.")
    kinds = given.get("layer_types", [])
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        problems.append(f"layer_types = {json_files.shown(kinds)}: must be a list of texts")
    return problems


def _num_experts(fields: Mapping[str, Any]) -> int | None:
    return fields.get("num_experts", fields.get("num_local_experts"))


def _period(fields: Mapping[str, Any]) -> int:
    """Layers from one that attends to all tokens to the next."""
    kinds = fields.get("layer_types")
    if kinds:
        return kinds.index(_FULL) + 1 if _FULL in kinds else len(kinds) + 1
    return fields.get(_INTERVAL) or 4


def _layer_kinds(num_layers: int, period: int) -> list[str]:
    return [_LINEAR if (i + 1) % period else _FULL for i in range(num_layers)]


def _layer_problems(fields: Mapping[str, Any], family: Family) -> list[str]:
    """What is said of the kinds of layers and is not supported."""
    supported = {_FULL, _LINEAR} if family.delta else {_FULL}
    unknown = sorted(set(fields.get("layer_types") or ()) - supported)
    if unknown:
        return [f"layer_types: {kind!r} is not supported" for kind in unknown]
    count = fields.get("num_hidden_layers")
    if not family.delta or count is None:
        return []
    period = _period(fields)
    kinds = fields.get("layer_types") or _layer_kinds(count, period)
    if period < 2 or count % period or kinds != _layer_kinds(count, period):
        return [
            f"layer_types, {_INTERVAL}: not supported for {count} layers; one or more {_LINEAR}, then one {_FULL},"
            " and these repeated to the last layer"
        ]
    return []


def _rotary_fraction(fields: Mapping[str, Any], family: Family) -> float:
    record = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    for place in (record, fields):
        if place.get("partial_rotary_factor") is not None:
            return float(place["partial_rotary_factor"])
    return 0.25 if family.delta else 1.0


def _field_problems(fields: Mapping[str, Any], family: Family) -> list[str]:
    required = [*_REQUIRED.values(), *(_EXPERT_FIELDS.values() if family.experts else ())]
    required += [*_DELTA_FIELDS.values(), _SHARED_WIDTH] if family.delta else []
    problems = [f"{name}: missing" for name in required if fields.get(name) is None]
    if family.experts and _num_experts(fields) is None:
        problems.append("num_experts: missing")
    if fields.get("model_type") != family.model_type:
        problems.append(
            f"model_type = {fields.get('model_type')!r}: does not go with the architecture; it needs"
            f" {family.model_type!r}"
        )
    for name, allowed in _FIXED.items():
        if name in fields and fields[name] not in allowed:
            problems.append(
                f"{name} = {json_files.shown(fields[name])}: not supported; only {' or '.join(map(repr, allowed))}"
            )
    problems += _layer_problems(fields, family)
    fraction = _rotary_fraction(fields, family)
    if fraction != 1.0 and not family.delta:
        problems.append(f"partial_rotary_factor = {fraction}: not supported; only 1.0")
    known = {*required, *_OPTIONAL, *_FIXED, *_HARMLESS}
    known |= {"num_experts", "num_local_experts"} if family.experts else set()
    known |= {_INTERVAL} if family.delta else set()
    for name, value in fields.items():
        # Something switched off changes nothing, whatever it is.
        if name not in known and not name.startswith("_") and value not in (None, False, [], {}):
            problems.append(
                f"{name[:60]} = {json_files.shown(value)}: unknown, and it might change the result"
            )
    return problems


def _read_rope(fields: Mapping[str, Any]) -> tuple[list[str], float, RopeScaling | None]:
    """(problems, base, scaling); transformers 5 writes `rope_parameters`, older ones `rope_scaling`."""
    record = dict(fields.get("rope_parameters") or fields.get("rope_scaling") or {})
    where = "rope_parameters" if fields.get("rope_parameters") else "rope_scaling"
    kind, old_kind = record.pop("rope_type", None), record.pop("type", None)
    kind = kind or old_kind or "default"
    theta = float(record.pop("rope_theta", fields.get("rope_theta", 10_000.0)))
    record.pop("partial_rotary_factor", None)  # see `_rotary_fraction`
    if kind not in _ROPE_KEYS:
        known = ", ".join(_ROPE_KEYS)
        return [f"{where}: rope_type = {kind!r}: must be one of {known}"], theta, None
    required, optional = _ROPE_KEYS[kind]
    record = {name: value for name, value in record.items() if value is not None}
    problems = [f"{where}: {name}: missing" for name in sorted(required - record.keys())]
    problems += [
        f"{where}: {name} = {json_files.shown(record[name])}: {kind} has no such setting that is supported"
        for name in sorted(record.keys() - required - optional)
    ]
    if problems or kind == "default":
        return problems, theta, None
    return [], theta, _scaling(kind, record, fields.get("max_position_embeddings", 32_768))


def _scaling(kind: str, record: Mapping[str, Any], max_positions: int) -> RopeScaling:
    factor = float(record["factor"])
    original = record.get("original_max_position_embeddings", max_positions)
    if kind == "linear":
        return RopeScaling(kind, factor)
    if kind == "llama3":
        low, high = float(record["low_freq_factor"]), float(record["high_freq_factor"])
        return RopeScaling(kind, factor, original, low, high)
    attention = record.get("attention_factor")
    if attention is None:
        scale, all_dim = record.get("mscale"), record.get("mscale_all_dim")
        attention = _yarn_attention(factor, 1.0)
        if scale and all_dim:
            attention = _yarn_attention(factor, scale) / _yarn_attention(factor, all_dim)
    return RopeScaling(
        kind,
        factor,
        original,
        low=float(record.get("beta_slow", 1)),
        high=float(record.get("beta_fast", 32)),
        attention_factor=float(attention),
        truncate=bool(record.get("truncate", True)),
    )


def _yarn_attention(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def config_fields(config: ModelConfig, *, prm: bool = False) -> dict[str, Any]:
    """The config.json of a model; inverse of `model_config`, in the form that every `transformers` reads.

    Args:
      config: of the model.
      prm: it is the trunk of a process reward model.
    Returns:
      Fields of config.json.
    Raises:
      ValueError: no architecture has this combination of switches.
    Example:
      >>> config = ModelConfig(8, 1, 4, num_heads=1, num_kv_heads=1, head_dim=4, d_ff=4)
      >>> config_fields(config)["architectures"], model_config(config_fields(config)) == config
      (['Qwen3ForCausalLM'], True)
    """
    if config.window:
        raise ValueError(f"window = {config.window}: checkpoints are written without windows only")
    switches = _switches(config)
    alike = [
        name
        for name, family in FAMILIES.items()
        if family.switches == switches and (name in PRM_ARCHITECTURES) == prm
    ]
    if not alike or (config.rotary_fraction != 1.0 and config.delta is None):
        raise ValueError(
            "qk_norm, qkv_bias, experts, delta, attention_gate, centred_norms, shared expert, rotary_fraction ="
            f" {(*switches, config.rotary_fraction)}: no architecture of transformers has these together"
        )
    architecture, family = alike[0], FAMILIES[alike[0]]
    fields = {"architectures": [architecture], "model_type": family.model_type}
    fields |= {theirs: getattr(config, ours) for ours, theirs in _REQUIRED.items()}
    fields |= {
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.rms_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_fields(config.rope_scaling),
        "tie_word_embeddings": config.tied,
        "torch_dtype": config.param_dtype,
    }
    if config.experts is not None:
        fields |= {theirs: getattr(config.experts, ours) for ours, theirs in _EXPERT_FIELDS.items()}
        fields |= {"num_experts": config.experts.num_experts}
        fields |= {"decoder_sparse_step": 1, "mlp_only_layers": []}
    if config.delta is not None:
        fields |= {theirs: getattr(config.delta, ours) for ours, theirs in _DELTA_FIELDS.items()}
        fields |= {
            _SHARED_WIDTH: config.experts.shared_d_ff,
            "layer_types": _layer_kinds(config.num_layers, config.period),
            "partial_rotary_factor": config.rotary_fraction,
        }
    return fields


def _switches(config: ModelConfig) -> tuple[bool, ...]:
    return (
        config.qk_norm,
        config.qkv_bias,
        config.experts is not None,
        config.delta is not None,
        config.attention_gate,
        config.centred_norms,
        config.experts is not None and config.experts.shared_d_ff > 0,
    )


def _rope_fields(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    fields: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        fields["original_max_position_embeddings"] = scaling.original_positions
    if scaling.kind == "llama3":
        fields |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
    if scaling.kind == "yarn":
        fields |= {"beta_slow": scaling.low, "beta_fast": scaling.high}
        fields |= {"attention_factor": scaling.attention_factor, "truncate": scaling.truncate}
    return fields
