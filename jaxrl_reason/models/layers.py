"""The parts of a decoder layer: attention or Gated DeltaNet, MLP, norms.

Device side, jit-safe. Reads: activations. Writes: nothing.

Shape letters: B rows, t tokens per row in this call, D width, H query heads, K key heads, E head width, F MLP width.
In Gated DeltaNet: J key heads of width E, H value heads of width V, X convolved channels per key head.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array

from jaxrl_reason import sharding
from jaxrl_reason.models import cache as kv
from jaxrl_reason.models import moe
from jaxrl_reason.models.model_config import ModelConfig
from jaxrl_reason.ops import attention, delta_rule


def _rotate(x_BtHE: Array, cos: Array, sin: Array) -> Array:
    # Pairs are (i, i + E/2), as in the published Qwen and Llama weights, not (2i, 2i + 1).
    half = cos.shape[-1]
    first, second, rest = jnp.split(x_BtHE.astype(jnp.float32), (half, 2 * half), axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin, rest]
    return jnp.concatenate(rotated, axis=-1).astype(x_BtHE.dtype)


class RMSNorm(nn.Module):
    """x * rsqrt(mean(x^2) + eps) * scale over the last axis, float32 inside; 1 + scale with `centred_norms`."""

    config: ModelConfig
    axis_name: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        first = nn.initializers.zeros if self.config.centred_norms else nn.initializers.ones
        init = nn.with_logical_partitioning(first, (self.axis_name,))
        scale = self.param("scale", init, (x.shape[-1],), jnp.dtype(self.config.param_dtype))
        x_f32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(
            jnp.mean(jnp.square(x_f32), axis=-1, keepdims=True) + self.config.rms_eps
        )
        scale = scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
        if self.config.centred_norms:
            scale = 1.0 + scale
        return (x_f32 * inverse * scale).astype(x.dtype)


def _weight(module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> Array:
    """A weight in the compute dtype, drawn with variance 1 / (size of the axes it sums over)."""
    config = module.config
    # "wo" sums over heads and head width, every other weight over its first axis.
    in_axis = tuple(range(len(shape) - 1)) if name == "wo" else 0
    out_axis = -1 if name == "wo" else tuple(range(1, len(shape)))
    init = nn.initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal", in_axis=in_axis, out_axis=out_axis
    )
    weight = module.param(
        name, nn.with_logical_partitioning(init, axes), shape, jnp.dtype(config.param_dtype)
    )
    return weight.astype(config.dtype)


def _bias(module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> Array:
    """A bias in the compute dtype, first 0, with axes for rows and tokens before its own."""
    init = nn.with_logical_partitioning(nn.initializers.zeros, axes)
    bias = module.param(name, init, shape, jnp.dtype(module.config.param_dtype))
    return bias.astype(module.config.dtype)[None, None]


def _linear(x_BtI: Array, weight: Array) -> Array:
    """Sum over the last axis of x and the first of the weight, as one product of two matrices.

    As a product of a matrix and a [B, t, I] array, the weight's gradient would transpose that array on the CPU: three
    times slower (67 ms and 23 ms for the gradient of this file's MLP on 64 x 90 tokens).
    """
    rows = x_BtI.shape[:-1]
    out = x_BtI.reshape(-1, x_BtI.shape[-1]) @ weight.reshape(weight.shape[0], -1)
    return out.reshape(*rows, *weight.shape[1:])


# Weights that may have a low-rank adapter (`lora`): the axis that they sum over, and the one that they make.
ADAPTER_AXES = {
    "wq": ("embed", "heads"),
    "wk": ("embed", "kv_heads"),
    "wv": ("embed", "kv_heads"),
    "wo": ("heads", "embed"),
    "gate": ("embed", "mlp"),
    "up": ("embed", "mlp"),
    "down": ("mlp", "embed"),
}
ADAPTER_SUFFIXES = ("_lora_a", "_lora_b")


def _adapted(module: nn.Module, name: str, x_BtI: Array, weight: Array) -> Array:
    """x W, and alpha / rank * (x A) B where this weight has an adapter; A and B are float32 parameters."""
    out, lora = _linear(x_BtI, weight), module.config.lora
    if lora is None or f"{module.name}.{name}" not in lora.targets:
        return out
    first, last = ADAPTER_AXES[name]
    # Uniform within 1 / sqrt(I), as PEFT draws it; with B = 0 the model is the base at first.
    inits = (
        nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        nn.initializers.zeros,
    )
    axes = ((first, "rank"), ("rank", last))
    shapes = ((x_BtI.shape[-1], lora.rank), (lora.rank, weight.size // x_BtI.shape[-1]))
    a, b = (
        module.param(
            name + suffix, nn.with_logical_partitioning(init, names), shape, jnp.float32
        ).astype(module.config.dtype)
        for suffix, init, names, shape in zip(ADAPTER_SUFFIXES, inits, axes, shapes, strict=True)
    )
    return out + lora.scale * _linear(_linear(x_BtI, a), b).reshape(out.shape)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; writes its keys in the cache, if there is one.

    With `attention_gate` each head's query weights are followed by those of its gate, as in arXiv 2505.06708.
    Whole rows, in training and when prompts are read, go through the kernel of the config. A step of decoding reads
    one token over prompts that rows share: there the dense form has nothing to lose.
    """

    config: ModelConfig
    mesh: Mesh | None = None

    @nn.compact
    def __call__(
        self, x_BtD: Array, cache: kv.LayerCache | None, shared: dict[str, Array]
    ) -> tuple[Array, kv.LayerCache | None]:
        c = self.config
        D, H, K, E = c.d_model, c.num_heads, c.num_kv_heads, c.head_dim
        gated = 2 if c.attention_gate else 1
        wq = _weight(self, "wq", (D, H, gated * E), ("embed", "heads", "head_dim"))
        wk = _weight(self, "wk", (D, K, E), ("embed", "kv_heads", "head_dim"))
        wv = _weight(self, "wv", (D, K, E), ("embed", "kv_heads", "head_dim"))
        wo = _weight(self, "wo", (H, E, D), ("heads", "head_dim", "embed"))
        q_BtHE = _adapted(self, "wq", x_BtD, wq)
        k_BtKE = _adapted(self, "wk", x_BtD, wk)
        v_BtKE = _adapted(self, "wv", x_BtD, wv)
        q_BtHE, gate_BtHE = jnp.split(q_BtHE, [E], axis=-1)  # no gate: nothing is left
        if c.qkv_bias:
            q_BtHE += _bias(self, "bq", (H, E), ("heads", "head_dim"))
            k_BtKE += _bias(self, "bk", (K, E), ("kv_heads", "head_dim"))
            v_BtKE += _bias(self, "bv", (K, E), ("kv_heads", "head_dim"))
        if c.qk_norm:
            q_BtHE = RMSNorm(c, "head_dim", name="q_norm")(q_BtHE)
            k_BtKE = RMSNorm(c, "head_dim", name="k_norm")(k_BtKE)
        q_BtHE = _rotate(q_BtHE, shared["cos"], shared["sin"])
        k_BtKE = _rotate(k_BtKE, shared["cos"], shared["sin"])
        own = (k_BtKE, v_BtKE)
        if cache is not None:
            cache, *own = kv.write(cache, k_BtKE, v_BtKE, shared["length"])
        if cache is None or kv.holds_only(cache, x_BtD.shape[1]):
            out_BtHE = attention.attend_rows(
                *(q_BtHE, k_BtKE, v_BtKE, shared["token_mask"]),
                scale=E**-0.5,
                window=c.window,
                kernel=c.attention,
                mesh=self.mesh,
            )
        else:
            prompt = (*kv.prompt_part(cache), shared["prompt_mask"])
            blocks = [prompt, (*own, shared["own_mask"])]
            out_BtHE = attention.attend(q_BtHE, blocks, scale=E**-0.5)
        if c.attention_gate:
            out_BtHE *= nn.sigmoid(gate_BtHE)
        out_BtI = out_BtHE.reshape(*x_BtD.shape[:2], H * E)
        return _adapted(self, "wo", out_BtI, wo.reshape(H * E, D)), cache


class DeltaNet(nn.Module):
    """Gated DeltaNet: queries, keys and values of a short convolution, the gated delta rule, a norm and a gate.

    A row's real tokens stand together at its left in here, wherever its padding is: neither the convolution nor the
    rule must step over any.

    Source: arXiv 2412.06464, with the projections of Qwen3-Next, which lie per key head as its own query, key,
      values and gates, and its strengths and decays.
    """

    config: ModelConfig
    mesh: Mesh | None = None

    @nn.compact
    def __call__(
        self, x_BtD: Array, cache: kv.StateCache | None, shared: dict[str, Array]
    ) -> tuple[Array, kv.StateCache | None]:
        c, d = self.config, self.config.delta
        rows, num_tokens, D = x_BtD.shape
        J, H, E, V = d.num_key_heads, d.num_value_heads, d.key_dim, d.value_dim
        per = H // J
        axes = ("embed", "heads", "head_dim")
        wqkvz = _weight(self, "wqkvz", (D, J, 2 * E + 2 * per * V), axes)
        wba = _weight(self, "wba", (D, J, 2 * per), axes)
        wo = _weight(self, "wo", (H, V, D), ("heads", "head_dim", "embed"))
        if num_tokens > 1:
            x_BtD = _reorder(x_BtD, shared["real_first"])
        before = kv.empty_state(c, rows) if cache is None else cache
        qkv_BtJX, z = jnp.split(_linear(x_BtD, wqkvz), [2 * E + per * V], axis=-1)
        mixed_BtJX, last = self._convolve(qkv_BtJX, before.last, shared["num_real"])
        q, k, v = jnp.split(mixed_BtJX, (E, 2 * E), axis=-1)
        q, k = (jnp.repeat(_unit(x), per, axis=2) for x in (q, k))
        b, a = jnp.split(_linear(x_BtD, wba).astype(jnp.float32), 2, axis=-1)
        b_BtH, a_BtH = (x.reshape(rows, num_tokens, H) for x in (b, a))
        real_Bt1 = jnp.arange(num_tokens)[None, :, None] < shared["num_real"][:, None, None]
        out_BtHV, state = delta_rule.gated_delta(
            q * E**-0.5,
            k,
            v.reshape(rows, num_tokens, H, V),
            jnp.where(real_Bt1, -self._rate() * nn.softplus(a_BtH + self._rate_bias()), 0.0),
            jnp.where(real_Bt1, nn.sigmoid(b_BtH), 0.0),
            before.state,
        )
        plain = dataclasses.replace(c, centred_norms=False)
        out_BtHV = RMSNorm(plain, "head_dim", name="norm")(out_BtHV)
        out_BtHV *= nn.silu(z.reshape(out_BtHV.shape).astype(jnp.float32))
        out_BtI = out_BtHV.astype(x_BtD.dtype).reshape(rows, num_tokens, H * V)
        out_BtD = _linear(out_BtI, wo.reshape(H * V, D))
        if num_tokens > 1:
            out_BtD = _reorder(out_BtD, shared["as_given"])
        return out_BtD, None if cache is None else kv.StateCache(state, last)

    def _convolve(self, x_BtJX: Array, last_BJwX: Array, num_real_B: Array) -> tuple[Array, Array]:
        """silu(sum of each channel's latest W inputs times its weights), float32; and the last W - 1 real inputs."""
        d, num_tokens = self.config.delta, x_BtJX.shape[1]
        J, E, W = d.num_key_heads, d.key_dim, d.conv_width
        channels = J * x_BtJX.shape[-1]
        init = nn.with_logical_partitioning(nn.initializers.normal(W**-0.5), (None, None, None))
        # As stored: all queries, all keys, all values. Small enough for every device to have it whole.
        dtype = jnp.dtype(self.config.param_dtype)
        stored = self.param("conv", init, (channels, 1, W), dtype).astype(jnp.float32)
        parts = jnp.split(stored[:, 0], (J * E, 2 * J * E))
        weight_JXW = jnp.concatenate([part.reshape(J, -1, W) for part in parts], axis=1)
        x = jnp.concatenate([jnp.moveaxis(last_BJwX, 2, 1).astype(x_BtJX.dtype), x_BtJX], axis=1)
        out = sum(
            x[:, w : w + num_tokens].astype(jnp.float32) * weight_JXW[None, None, ..., w]
            for w in range(W)
        )
        latest = num_real_B[:, None] + jnp.arange(W - 1)[None]
        last = jnp.take_along_axis(x, latest[..., None, None], axis=1)
        return nn.silu(out), jnp.moveaxis(last, 1, 2).astype(last_BJwX.dtype)

    def _rate(self) -> Array:
        """Speeds of forgetting [1, 1, H], kept as logarithms."""

        def init(key, shape, dtype):
            return jnp.log(jax.random.uniform(key, shape, dtype, 0.01, 16.0))

        return jnp.exp(self._per_head("log_rate", init))

    def _rate_bias(self) -> Array:
        return self._per_head("rate_bias", nn.initializers.ones)

    def _per_head(self, name: str, init: nn.initializers.Initializer) -> Array:
        init = nn.with_logical_partitioning(init, ("heads",))
        shape = (self.config.delta.num_value_heads,)
        value = self.param(name, init, shape, jnp.dtype(self.config.param_dtype))
        return value.astype(jnp.float32)[None, None]


def real_tokens_first(token_mask_Bt: Array) -> dict[str, Array]:
    """How `DeltaNet` puts padding aside: the order in there, the way back from it, and real tokens per row."""
    order_Bt = jnp.argsort(~token_mask_Bt, axis=1, stable=True)
    return {
        "real_first": order_Bt,
        "as_given": jnp.argsort(order_Bt, axis=1),
        "num_real": jnp.sum(token_mask_Bt, axis=1, dtype=jnp.int32),
    }


def _reorder(x_BtD: Array, order_Bt: Array) -> Array:
    """x[b, order[b, t]]; told that no index comes twice, the gradient needs no sums in random order."""

    def row(x, order):
        return x.at[order].get(mode="promise_in_bounds", unique_indices=True)

    return jax.vmap(row)(x_BtD, order_Bt)


def _unit(x: Array) -> Array:
    """Vectors of length 1, nearly: the constant of Qwen3-Next keeps 0 at 0."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


class MLP(nn.Module):
    """SwiGLU: (silu(x gate) * x up) down."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BtD: Array) -> Array:
        D, F = self.config.d_model, self.config.d_ff
        gate = _weight(self, "gate", (D, F), ("embed", "mlp"))
        up = _weight(self, "up", (D, F), ("embed", "mlp"))
        down = _weight(self, "down", (F, D), ("mlp", "embed"))
        inner_BtF = nn.silu(_adapted(self, "gate", x_BtD, gate)) * _adapted(self, "up", x_BtD, up)
        return _adapted(self, "down", inner_BtF, down)


class Layer(nn.Module):
    """One decoder layer; a scan's body in training, called layer by layer with a cache."""

    config: ModelConfig
    mesh: Mesh | None
    linear: bool = False  # Gated DeltaNet in place of attention

    @nn.compact
    def __call__(
        self,
        x_BtD: Array,
        cache: kv.LayerCache | kv.StateCache | None,
        shared: dict[str, Array],
    ) -> tuple[Array, kv.LayerCache | kv.StateCache | None]:
        c, rows = self.config, ("rows", None, None)
        kind, name = (DeltaNet, "delta") if self.linear else (Attention, "attention")
        attended, cache = kind(c, self.mesh, name=name)(
            RMSNorm(c, "embed", name="attention_norm")(x_BtD), cache, shared
        )
        x_BtD = sharding.constrain(x_BtD + attended, self.mesh, rows)
        mlp = MLP(c, name="mlp") if c.experts is None else moe.Experts(c, name="mlp")
        x_BtD = x_BtD + mlp(RMSNorm(c, "embed", name="mlp_norm")(x_BtD))
        return sharding.constrain(x_BtD, self.mesh, rows), cache


# What a layer keeps for the backward pass, by `remat`. Scores have batch axes, and are not kept by either.
_KEPT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def recomputed(layer: type[nn.Module], remat: str) -> type[nn.Module]:
    """The layer, computed anew in the backward pass as far as `remat` says: none | full | dots."""
    if remat == "none":
        return layer
    return nn.remat(layer, prevent_cse=False, policy=_KEPT[remat])


def place_name(index: int) -> str:
    """Name of the layers at this place of every period."""
    return f"place_{index}"


class Period(nn.Module):
    """Layers of different kinds after which the kinds repeat: a scan's body where there are several kinds."""

    config: ModelConfig
    mesh: Mesh | None

    @nn.compact
    def __call__(self, x_BtD: Array, cache: None, shared: dict[str, Array]) -> tuple[Array, None]:
        c = self.config
        layer = recomputed(Layer, c.remat)
        for i in range(c.period):
            x_BtD, _ = layer(c, self.mesh, c.is_linear(i), name=place_name(i))(x_BtD, None, shared)
        return x_BtD, None
