"""Sizes and switches of a model: all that tells one decoder of the supported families from another.

Host side. Reads: nothing. Writes: nothing.

A family is a combination of switches, not a class: Llama has none of them, Qwen2 `qkv_bias`, Qwen3 `qk_norm`,
Qwen3-MoE `qk_norm` and `experts`, Qwen3-Next these two, `delta`, `attention_gate`, `centred_norms`, a part of each
head rotated and a shared expert. `families` reads them from a checkpoint's config.json.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reason.ops.attention import KERNELS

REMATS = ("none", "full", "dots")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Rotary frequencies stretched to a longer context than the one a model was first trained for."""

    kind: str  # linear | llama3 | yarn
    factor: float  # >= 1: long wavelengths grow by it
    original_positions: int = 0  # context before stretching; 0 for linear, which needs none
    low: float = 1.0  # llama3: low_freq_factor; yarn: beta_slow, turns within the original context
    high: float = 1.0  # llama3: high_freq_factor; yarn: beta_fast; above it nothing is stretched
    attention_factor: float = 1.0  # yarn: factor on cos and sin
    truncate: bool = True  # yarn: the ramp starts and ends at whole dimensions

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "llama3", "yarn"):
            raise ValueError(f"rope kind {self.kind!r}: must be one of linear, llama3, yarn")
        if self.factor < 1:
            raise ValueError(f"rope factor = {self.factor}: must be >= 1")
        if self.kind != "linear" and (self.original_positions < 1 or self.high <= self.low):
            raise ValueError(
                f"rope {self.kind}: original_positions = {self.original_positions} must be >= 1, and"
                f" high = {self.high} above low = {self.low}"
            )


@dataclasses.dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of experts in place of each layer's MLP."""

    num_experts: int  # X >= 1
    top_k: int  # experts that each token visits, in [1, X]
    d_ff: int  # width of one expert, >= 1
    normalise: bool  # weights of the visited experts sum to 1
    shared_d_ff: int = 0  # width of the expert that every token visits, >= 0; 0: there is none

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts or self.d_ff < 1 or self.shared_d_ff < 0:
            raise ValueError(
                f"experts: top_k = {self.top_k} must be in [1, num_experts = {self.num_experts}],"
                f" d_ff = {self.d_ff} >= 1 and shared_d_ff = {self.shared_d_ff} >= 0"
            )


@dataclasses.dataclass(frozen=True)
class DeltaConfig:
    """Gated DeltaNet in place of attention, in all layers but every `period`-th."""

    period: int  # >= 2, divides num_layers; the last layer of each period attends to all tokens
    num_key_heads: int  # >= 1
    num_value_heads: int  # multiple of num_key_heads
    key_dim: int  # width of a query or key head, >= 1
    value_dim: int  # width of a value head, >= 1
    conv_width: int  # tokens that the convolution before the rule sees, >= 1

    def __post_init__(self) -> None:
        sizes = ("num_key_heads", "num_value_heads", "key_dim", "value_dim", "conv_width")
        problems = [
            f"{x} = {getattr(self, x)}: must be >= 1" for x in sizes if getattr(self, x) < 1
        ]
        if self.period < 2:
            problems.append(f"period = {self.period}: must be >= 2")
        if not problems and self.num_value_heads % self.num_key_heads:
            problems.append(
                f"num_value_heads = {self.num_value_heads}: must be a multiple of"
                f" num_key_heads = {self.num_key_heads}"
            )
        if problems:
            raise ValueError("bad delta config:\n" + "\n".join(f"  {p}" for p in problems))


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters beside some weights of every layer (`lora`)."""

    rank: int  # >= 1
    alpha: float  # > 0
    targets: tuple[str, ...]  # "attention.wq"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not self.targets:
            raise ValueError(
                f"lora: rank = {self.rank} must be >= 1, alpha = {self.alpha} > 0, and targets not empty"
            )

    @property
    def scale(self) -> float:
        """Factor on the adapters' part."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of one model.

    Example:
      >>> ModelConfig(vocab_size=8, num_layers=1, d_model=4, num_heads=2, num_kv_heads=1, head_dim=2, d_ff=8).tied
      True
    """

    vocab_size: int  # V >= 1
    num_layers: int  # L >= 1
    d_model: int  # D >= 1
    num_heads: int  # H >= 1
    num_kv_heads: int  # K, divides H
    head_dim: int  # E, even
    d_ff: int  # F >= 1
    rope_theta: float = 1_000_000.0  # > 0, base of the rotary wavelengths
    rms_eps: float = 1e-6  # > 0
    tied: bool = True  # the head is the embedding
    qk_norm: bool = True  # RMSNorm on each query and key head
    qkv_bias: bool = False  # biases on queries, keys and values
    attention_gate: bool = (
        False  # attention's output is multiplied by sigmoid(x w), one gate per query channel
    )
    centred_norms: bool = False  # RMSNorm multiplies by 1 + its parameter
    rotary_fraction: float = (
        1.0  # of each head that is rotated, in (0, 1]; the rest has no position
    )
    rope_scaling: RopeScaling | None = None  # None: plain rotary frequencies
    experts: ExpertsConfig | None = None  # None: one MLP of width d_ff
    delta: DeltaConfig | None = None  # None: every layer attends to all tokens
    lora: LoraConfig | None = None  # None: no adapters
    max_positions: int = 32_768  # tokens of a row, >= 1; what an exported checkpoint declares
    dtype: str = "float32"  # compute dtype: float32 | bfloat16
    param_dtype: str = "float32"  # float32 | bfloat16
    window: int = 0  # tokens that a token sees, itself included; 0: all before it
    attention: str = (
        "dense"  # kernel of whole rows: dense | xla | cudnn | splash, see `ops.attention`
    )
    # What the backward pass computes anew: none | full (each layer) | dots (all but products with weights).
    remat: str = "none"

    def __post_init__(self) -> None:
        sizes = (
            "vocab_size",
            "num_layers",
            "d_model",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "d_ff",
            "max_positions",
        )
        problems = [
            f"{x} = {getattr(self, x)}: must be >= 1" for x in sizes if getattr(self, x) < 1
        ]
        if not problems and self.num_heads % self.num_kv_heads:
            problems.append(
                f"num_kv_heads = {self.num_kv_heads}: must divide num_heads = {self.num_heads}"
            )
        if self.head_dim % 2:
            problems.append(f"head_dim = {self.head_dim}: must be even, rotary halves are paired")
        if not 0 < self.rotary_fraction <= 1 or self.rotary_dim < 2 or self.rotary_dim % 2:
            problems.append(
                f"rotary_fraction = {self.rotary_fraction}: must be in (0, 1], and rotate an even number"
                f" of the {self.head_dim} channels"
            )
        if self.delta is not None and self.num_layers % self.delta.period:
            problems.append(
                f"num_layers = {self.num_layers}: must be a multiple of delta.period = {self.delta.period}"
            )
        for name in ("dtype", "param_dtype"):
            if getattr(self, name) not in ("float32", "bfloat16"):
                problems.append(
                    f"{name} = {getattr(self, name)!r}: must be one of float32, bfloat16"
                )
        if self.window < 0:
            problems.append(f"window = {self.window}: must be >= 0 tokens, 0 for no window")
        for name, known in (("attention", KERNELS), ("remat", REMATS)):
            if getattr(self, name) not in known:
                problems.append(
                    f"{name} = {getattr(self, name)!r}: must be one of {', '.join(known)}"
                )
        if problems:
            raise ValueError("bad model config:\n" + "\n".join(f"  {p}" for p in problems))

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that are rotated, the first ones."""
        return int(self.head_dim * self.rotary_fraction)

    @property
    def period(self) -> int:
        """Layers after which the kinds of layers repeat."""
        return 1 if self.delta is None else self.delta.period

    def is_linear(self, layer: int) -> bool:
        """Whether this layer keeps a state of fixed size instead of attending to all tokens."""
        return (layer + 1) % self.period != 0
