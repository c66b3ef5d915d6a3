"""Sizes and switches of a model: all that tells one decoder of the supported families from another.

Host side. Reads: nothing. Writes: nothing.

A family is a combination of switches, not a class: Llama has none of them, Qwen2 `qkv_bias`, Qwen3 `qk_norm`,
Qwen3-MoE `qk_norm` and `experts`. `families` reads them from a checkpoint's config.json.
"""

from __future__ import annotations

import dataclasses


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

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts or self.d_ff < 1:
            raise ValueError(
                f"experts: top_k = {self.top_k} must be in [1, num_experts = {self.num_experts}],"
                f" and d_ff = {self.d_ff} >= 1"
            )


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
    rope_scaling: RopeScaling | None = None  # None: plain rotary frequencies
    experts: ExpertsConfig | None = None  # None: one MLP of width d_ff
    lora: LoraConfig | None = None  # None: no adapters
    max_positions: int = 32_768  # tokens of a row, >= 1; what an exported checkpoint declares
    dtype: str = "float32"  # compute dtype: float32 | bfloat16
    param_dtype: str = "float32"  # float32 | bfloat16
    remat: bool = False  # recompute a layer's activations in the backward pass

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
        for name in ("dtype", "param_dtype"):
            if getattr(self, name) not in ("float32", "bfloat16"):
                problems.append(
                    f"{name} = {getattr(self, name)!r}: must be one of float32, bfloat16"
                )
        if problems:
            raise ValueError("bad model config:\n" + "\n".join(f"  {p}" for p in problems))
