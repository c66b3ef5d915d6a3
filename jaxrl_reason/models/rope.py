"""Rotary positions: plain, or with frequencies stretched to a longer context.

Device side, jit-safe. Reads: positions. Writes: nothing.

Shape letters: B rows, t tokens per row in this call, E channels of a head that are rotated.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrl_reason.models.model_config import ModelConfig, RopeScaling


def angles(
    positions: Int[Array, "B t"], config: ModelConfig
) -> tuple[Float[Array, "B t 1 half"], Float[Array, "B t 1 half"]]:
    """cos and sin of position * frequency, [B, t, 1, E/2], float32.

    Float32 whatever the compute dtype: bfloat16 cannot tell neighbouring positions apart beyond 256.

    Args:
      positions: [B, t] int.
      config: rotary base, head width, share of it that is rotated, and scaling.
    Returns:
      (cos, sin), with YaRN's attention factor in both.
    Example:
      >>> config = ModelConfig(8, 1, 4, num_heads=1, num_kv_heads=1, head_dim=4, d_ff=4)
      >>> cos, sin = angles(jnp.asarray([[0, 1]]), config)
      >>> cos.shape, float(sin[0, 0, 0, 0])
      ((1, 2, 1, 2), 0.0)
    """
    width = config.rotary_dim
    exponent = jnp.arange(0, width, 2, dtype=jnp.float32) / width
    frequency = config.rope_theta**-exponent
    scaling = config.rope_scaling
    if scaling is not None:
        frequency = jnp.asarray(scaled_frequencies(config.rope_theta, width, scaling))
    angle = positions.astype(jnp.float32)[..., None, None] * frequency[None, None, None]
    if scaling is None or scaling.attention_factor == 1.0:
        return jnp.cos(angle), jnp.sin(angle)
    factor = scaling.attention_factor
    return jnp.cos(angle) * factor, jnp.sin(angle) * factor


def scaled_frequencies(
    theta: float, head_dim: int, scaling: RopeScaling
) -> Float[np.ndarray, " half"]:
    """Frequencies theta^(-2i/E), long wavelengths divided by `factor`, short ones kept, a ramp between.

    Args:
      theta: rotary base.
      head_dim: E.
      scaling: how to stretch.
    Returns:
      [E/2] float32.
    Example:
      >>> scaled_frequencies(100.0, 4, RopeScaling("linear", 2.0))
      array([0.5 , 0.05], dtype=float32)

    Source: YaRN, arXiv 2309.00071; llama3 as released with Llama 3.1 (arXiv 2407.21783), both with the constants of
      `transformers.modeling_rope_utils`.
    """
    plain = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    ramp = {"linear": _linear_ramp, "llama3": _llama3_ramp, "yarn": _yarn_ramp}[scaling.kind]
    stretched = ramp(plain, theta, head_dim, scaling)
    return (plain * (1 - stretched) + plain / scaling.factor * stretched).astype(np.float32)


# Share of each frequency that is stretched, in [0, 1].


def _linear_ramp(plain: np.ndarray, theta: float, head_dim: int, s: RopeScaling) -> np.ndarray:
    return np.ones_like(plain)


def _llama3_ramp(plain: np.ndarray, theta: float, head_dim: int, s: RopeScaling) -> np.ndarray:
    turns = s.original_positions * plain / (2 * math.pi)
    return 1 - np.clip((turns - s.low) / (s.high - s.low), 0.0, 1.0)


def _yarn_ramp(plain: np.ndarray, theta: float, head_dim: int, s: RopeScaling) -> np.ndarray:
    def dimension(turns: float) -> float:
        return (
            head_dim
            * math.log(s.original_positions / (turns * 2 * math.pi))
            / (2 * math.log(theta))
        )

    first, last = dimension(s.high), dimension(s.low)
    if s.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    if first == last:
        last += 0.001
    return np.clip((np.arange(head_dim // 2) - first) / (last - first), 0.0, 1.0)
