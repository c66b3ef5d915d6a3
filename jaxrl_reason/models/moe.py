"""Mixture of experts: each token visits the few experts that a router picks for it.

Device side, jit-safe. Reads: activations. Writes: nothing.

Shape letters: B rows, t tokens per row in this call, D width, X experts, k experts per token, F width of an expert,
n = B t tokens in all.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jaxrl_reason.models.model_config import ModelConfig


class Experts(nn.Module):
    """sum over the k best experts e of p_e (silu(x gate_e) * x up_e) down_e, p = softmax(x router).

    With `shared_d_ff` every token visits one more expert, which counts sigmoid(x shared_router). No token is dropped,
    however unevenly the experts are chosen: tokens are sorted by expert and multiplied in groups, so that the result
    of one token does not depend on the others of its batch.

    Source: Qwen3-MoE, arXiv 2505.09388; the shared expert as in Qwen2-MoE, arXiv 2407.10671, section 2.2.2.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BtD: Array) -> Array:
        c, experts = self.config, self.config.experts
        D, X, F = c.d_model, experts.num_experts, experts.d_ff
        router = self._weight("router", (D, X), ("embed", "experts"))
        gate = self._weight("gate", (X, D, F), ("experts", "embed", "mlp"))
        up = self._weight("up", (X, D, F), ("experts", "embed", "mlp"))
        down = self._weight("down", (X, F, D), ("experts", "mlp", "embed"))
        x_nD = x_BtD.reshape(-1, D)
        weight_nk, chosen_nk = route(
            x_nD @ router, top_k=experts.top_k, normalise=experts.normalise
        )
        order = jnp.argsort(chosen_nk.reshape(-1), stable=True)
        sizes = jnp.bincount(chosen_nk.reshape(-1), length=X)
        sorted_mD = jnp.take(x_nD, order // experts.top_k, axis=0)
        inner_mF = nn.silu(jax.lax.ragged_dot(sorted_mD, gate, sizes))
        inner_mF = inner_mF * jax.lax.ragged_dot(sorted_mD, up, sizes)
        out_mD = jax.lax.ragged_dot(inner_mF, down, sizes)
        out_nkD = jnp.take(out_mD, jnp.argsort(order), axis=0).reshape(-1, experts.top_k, D)
        out_nD = jnp.einsum("nkD,nk->nD", out_nkD, weight_nk.astype(out_nkD.dtype))
        if experts.shared_d_ff:
            out_nD += self._shared(x_nD, experts.shared_d_ff)
        return out_nD.reshape(x_BtD.shape)

    def _shared(self, x_nD: Array, F: int) -> Array:
        D = x_nD.shape[-1]
        gate = self._weight("shared_gate", (D, F), ("embed", "mlp"))
        up = self._weight("shared_up", (D, F), ("embed", "mlp"))
        down = self._weight("shared_down", (F, D), ("mlp", "embed"))
        router = self._weight("shared_router", (D, 1), ("embed", "experts"))
        return nn.sigmoid(x_nD @ router) * ((nn.silu(x_nD @ gate) * (x_nD @ up)) @ down)

    def _weight(self, name: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> Array:
        init = nn.initializers.variance_scaling(
            1.0,
            "fan_in",
            "truncated_normal",
            in_axis=-2,
            out_axis=-1,
            batch_axis=tuple(range(len(shape) - 2)),
        )
        init = nn.with_logical_partitioning(init, axes)
        weight = self.param(name, init, shape, jnp.dtype(self.config.param_dtype))
        return weight.astype(self.config.dtype)


def route(logits_nX: Array, *, top_k: int, normalise: bool) -> tuple[Array, Array]:
    """Weights [n, k] float32 and ids [n, k] of the experts that each token visits.

    Args:
      logits_nX: [n, X] of the router.
      top_k: k.
      normalise: the k weights sum to 1; otherwise they are the probabilities among all X.
    Returns:
      (weights, ids), the likeliest expert first. The softmax is float32.
    Example:
      >>> weights, ids = route(jnp.log(jnp.asarray([[1.0, 2.0, 1.0]])), top_k=1, normalise=False)
      >>> float(weights[0, 0]), int(ids[0, 0])
      (0.5, 1)
    """
    probabilities = jax.nn.softmax(logits_nX.astype(jnp.float32), axis=-1)
    weights, ids = jax.lax.top_k(probabilities, top_k)
    if normalise:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return weights, ids
