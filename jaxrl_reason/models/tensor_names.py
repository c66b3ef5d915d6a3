"""Names of parameters in Hugging Face checkpoints, and how each lies in its tensor.

Host side. Reads: nothing. Writes: nothing.

One table for all families: a parameter is there or not by the switches of its model, and a checkpoint that differs
from the model in any name is refused as a whole.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from jaxrl_reason.models.model_config import ModelConfig

NEXT_ARCHITECTURE = "Qwen3NextForCausalLM"
# The first is that of Qwen2.5-Math-PRM; the others are its head on other trunks, under the same rule of names.
PRM_ARCHITECTURES = (
    "Qwen2ForProcessRewardModel",
    "Qwen3ForProcessRewardModel",
    "LlamaForProcessRewardModel",
)


@dataclasses.dataclass(frozen=True)
class TensorName:
    """Where a parameter of ours lies in a checkpoint.

    `groups` says how: axis i of the checkpoint's tensor is made of our axes groups[i], slowest first. Our stacked
    axes, one per placeholder in the name, come first and are not counted.
    """

    template: str  # with {layer} and {expert}
    groups: tuple[tuple[int, ...], ...]
    first: int = 0  # layer of the model that comes first in our stack
    step: int = 1  # layers from one of our stack to the next

    @property
    def num_stacked(self) -> int:
        """Number of leading axes of ours that count tensors."""
        return self.template.count("{")

    def format(self, stacked: tuple[int, ...]) -> str:
        """Name of one tensor."""
        at = dict(zip(("layer", "expert"), stacked, strict=False))
        if "layer" in at:
            at["layer"] = self.first + self.step * at["layer"]
        return self.template.format(**at)


_VECTOR, _SAME, _TRANSPOSED = ((0,),), ((0,), (1,)), ((1,), (0,))
_SAME_3 = ((0,), (1,), (2,))
_HEADS_OUT, _HEADS_IN, _HEADS_BIAS = ((1, 2), (0,)), ((2,), (0, 1)), ((0, 1),)
_LAYER = "model.layers.{layer}."

# Path of our parameter -> name in the checkpoint.
_NAMES: Mapping[str, TensorName] = {
    "embedding": TensorName("model.embed_tokens.weight", _SAME),
    "head": TensorName("lm_head.weight", _SAME),
    "final_norm.scale": TensorName("model.norm.weight", _VECTOR),
    "layers.attention_norm.scale": TensorName(_LAYER + "input_layernorm.weight", _VECTOR),
    "layers.mlp_norm.scale": TensorName(_LAYER + "post_attention_layernorm.weight", _VECTOR),
    "layers.attention.wq": TensorName(_LAYER + "self_attn.q_proj.weight", _HEADS_OUT),
    "layers.attention.wk": TensorName(_LAYER + "self_attn.k_proj.weight", _HEADS_OUT),
    "layers.attention.wv": TensorName(_LAYER + "self_attn.v_proj.weight", _HEADS_OUT),
    "layers.attention.wo": TensorName(_LAYER + "self_attn.o_proj.weight", _HEADS_IN),
    "layers.attention.bq": TensorName(_LAYER + "self_attn.q_proj.bias", _HEADS_BIAS),
    "layers.attention.bk": TensorName(_LAYER + "self_attn.k_proj.bias", _HEADS_BIAS),
    "layers.attention.bv": TensorName(_LAYER + "self_attn.v_proj.bias", _HEADS_BIAS),
    "layers.attention.q_norm.scale": TensorName(_LAYER + "self_attn.q_norm.weight", _VECTOR),
    "layers.attention.k_norm.scale": TensorName(_LAYER + "self_attn.k_norm.weight", _VECTOR),
    # Heads of our first two are key heads, each with all that belongs to it, as in the tensors.
    "layers.delta.wqkvz": TensorName(_LAYER + "linear_attn.in_proj_qkvz.weight", _HEADS_OUT),
    "layers.delta.wba": TensorName(_LAYER + "linear_attn.in_proj_ba.weight", _HEADS_OUT),
    "layers.delta.conv": TensorName(_LAYER + "linear_attn.conv1d.weight", _SAME_3),
    "layers.delta.log_rate": TensorName(_LAYER + "linear_attn.A_log", _VECTOR),
    "layers.delta.rate_bias": TensorName(_LAYER + "linear_attn.dt_bias", _VECTOR),
    "layers.delta.norm.scale": TensorName(_LAYER + "linear_attn.norm.weight", _VECTOR),
    "layers.delta.wo": TensorName(_LAYER + "linear_attn.out_proj.weight", _HEADS_IN),
    "layers.mlp.gate": TensorName(_LAYER + "mlp.gate_proj.weight", _TRANSPOSED),
    "layers.mlp.up": TensorName(_LAYER + "mlp.up_proj.weight", _TRANSPOSED),
    "layers.mlp.down": TensorName(_LAYER + "mlp.down_proj.weight", _TRANSPOSED),
    # The reward head of `prm`.
    "score.inner": TensorName("score.0.weight", _TRANSPOSED),
    "score.inner_bias": TensorName("score.0.bias", _VECTOR),
    "score.outer": TensorName("score.2.weight", _TRANSPOSED),
    "score.outer_bias": TensorName("score.2.bias", _VECTOR),
}
_EXPERT, _SHARED = _LAYER + "mlp.experts.{expert}.", _LAYER + "mlp.shared_expert."
_EXPERT_NAMES: Mapping[str, TensorName] = {
    "layers.mlp.router": TensorName(_LAYER + "mlp.gate.weight", _TRANSPOSED),
    "layers.mlp.gate": TensorName(_EXPERT + "gate_proj.weight", _TRANSPOSED),
    "layers.mlp.up": TensorName(_EXPERT + "up_proj.weight", _TRANSPOSED),
    "layers.mlp.down": TensorName(_EXPERT + "down_proj.weight", _TRANSPOSED),
    "layers.mlp.shared_router": TensorName(_LAYER + "mlp.shared_expert_gate.weight", _TRANSPOSED),
    "layers.mlp.shared_gate": TensorName(_SHARED + "gate_proj.weight", _TRANSPOSED),
    "layers.mlp.shared_up": TensorName(_SHARED + "up_proj.weight", _TRANSPOSED),
    "layers.mlp.shared_down": TensorName(_SHARED + "down_proj.weight", _TRANSPOSED),
}
_PLACE = re.compile(r"layers\.place_(\d+)\.")


def tensor_name(path: str, config: ModelConfig) -> TensorName:
    """Where the parameter at `path`, "layers.mlp.up", lies in a checkpoint.

    Example:
      >>> config = ModelConfig(8, 1, 4, num_heads=1, num_kv_heads=1, head_dim=4, d_ff=4)
      >>> tensor_name("layers.mlp.up", config).format((3,))
      'model.layers.3.mlp.up_proj.weight'
    """
    place = _PLACE.match(path)
    if place:
        name = tensor_name("layers." + path[place.end() :], config)
        return dataclasses.replace(name, first=int(place[1]), step=config.period)
    if config.experts is not None and path in _EXPERT_NAMES:
        return _EXPERT_NAMES[path]
    return _NAMES[path]


def may_be_left_out(name: str, architecture: str) -> bool:
    """Tensors of a checkpoint that no forward pass of its architecture reads."""
    if architecture == NEXT_ARCHITECTURE and name.startswith("mtp."):
        # Heads that guess several tokens at once, to decode faster. Left out knowingly, as by `transformers`: they
        # change no logit, nothing here trains them, and an exported checkpoint has none.
        return True
    computed = name.endswith("rotary_emb.inv_freq")  # old checkpoints carry this constant
    return computed or (architecture in PRM_ARCHITECTURES and name == "lm_head.weight")
