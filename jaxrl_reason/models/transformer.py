"""Decoder-only transformer of the Qwen and Llama families: one forward path for training, prompt reading and decoding.

Device side, jit-safe. Reads: token ids. Writes: nothing.

Shape letters: B rows, t tokens per row in this call, D width, E head width, V vocabulary. Logits are never made
inside: `logits` for a few positions, `ops.logprob` for the log-probs of many.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_reason import sharding
from jaxrl_reason.models import cache as kv
from jaxrl_reason.models import layers, rope
from jaxrl_reason.models.model_config import ModelConfig
from jaxrl_reason.ops import attention
from jaxrl_reason.types import Params

_MOST_UNROLLED = 4  # layers
_NOT_CAST = ("scale", "log_rate", "rate_bias")  # read in float32 whatever the compute dtype

PRESETS: Mapping[str, ModelConfig] = {
    # About 0.2M parameters: trains on a laptop CPU. Deep rather than wide: a repair finds its place in the failed text,
    # fetches two numbers and adds them, and three layers are too few for that. Its 8 rotary wavelengths span 6 to 350
    # tokens, the lengths it sees: those of a language model would hardly turn, and copying would not be learned.
    "tiny": ModelConfig(
        vocab_size=128,
        num_layers=5,
        d_model=64,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        d_ff=128,
        rope_theta=100.0,
    ),
    # About 4.2M parameters.
    "small": ModelConfig(
        vocab_size=4096,
        num_layers=4,
        d_model=256,
        num_heads=8,
        num_kv_heads=4,
        head_dim=32,
        d_ff=768,
    ),
}


def positions_from_mask(
    token_mask: Bool[Array, "B t"], cache: kv.KVCache | None = None
) -> Int[Array, "B t"]:
    """Position of each token in its own row: number of real tokens before it.

    Args:
      token_mask: [B, t], False on padding, wherever the padding is.
      cache: what was read before these tokens.
    Returns:
      [B, t] int32; the first real token of a row is 0, however much padding stands to its left. Padding has the
      position of the last real token before it, 0 where there is none.
    Example:
      >>> print(positions_from_mask(jnp.asarray([[False, True, True]])))
      [[0 0 1]]
    """
    before_B = jnp.zeros(token_mask.shape[0], jnp.int32)
    if cache is not None:
        samples = token_mask.shape[0] // cache.prompt_mask.shape[0]
        prompt_N = jnp.sum(cache.prompt_mask, axis=1, dtype=jnp.int32)
        before_B = jnp.repeat(prompt_N, samples) + jnp.sum(cache.own_mask, axis=1, dtype=jnp.int32)
    upto_Bt = jnp.cumsum(token_mask, axis=1, dtype=jnp.int32)
    return jnp.maximum(before_B[:, None] + upto_Bt - 1, 0)


def cached_masks(
    token_mask: Bool[Array, "B t"], cache: kv.KVCache, window: int = 0
) -> tuple[Bool[Array, "B t P"], Bool[Array, "B t C"]]:
    """Where each token may look: at no padding, at nothing to its right, at nothing beyond the window.

    Args:
      token_mask: [B, t].
      cache: what was read before these tokens, not yet holding them.
      window: tokens that a token sees, itself included; 0: all before it.
    Returns:
      (mask over the columns of the prompt part, mask over the rows' own columns, these tokens included).
    """
    rows, num_tokens = token_mask.shape
    own_mask = jax.lax.dynamic_update_slice(cache.own_mask, token_mask, (0, cache.length))
    prompt_mask = jnp.repeat(cache.prompt_mask, rows // cache.prompt_mask.shape[0], axis=0)
    last_t = cache.length + jnp.arange(num_tokens)
    upto_tC = jnp.arange(own_mask.shape[1])[None, :] <= last_t[:, None]
    prompt_BtP = jnp.broadcast_to(prompt_mask[:, None, :], (rows, num_tokens, prompt_mask.shape[1]))
    own_BtC = own_mask[:, None, :] & upto_tC[None]
    if not window:
        return prompt_BtP, own_BtC
    masks = jnp.concatenate([prompt_mask, own_mask], axis=1)
    count = jnp.cumsum(masks, axis=1, dtype=jnp.int32)
    first = prompt_mask.shape[1]
    query_count = jax.lax.dynamic_slice_in_dim(count, first + cache.length, num_tokens, axis=1)
    seen = attention.in_window(query_count, count, window)
    return prompt_BtP & seen[..., :first], own_BtC & seen[..., first:]


class Transformer(nn.Module):
    """Token ids -> hidden states, and the cache with these tokens written into it.

    Attributes:
      config: sizes and switches.
      mesh: keeps activations split by rows over it; None on one device.
    """

    config: ModelConfig
    mesh: Mesh | None = None

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B t"],
        positions: Int[Array, "B t"],
        token_mask: Bool[Array, "B t"],
        cache: kv.KVCache | None = None,
    ) -> tuple[Float[Array, "B t D"], kv.KVCache | None]:
        """Hidden states after the last norm.

        Args:
          tokens: [B, t]; any id of the vocabulary on padding.
          positions: [B, t], from `positions_from_mask`.
          token_mask: [B, t], False on padding; padding is never attended to.
          cache: what was read before; its own part must have t columns left.
        Returns:
          ([B, t, D] in the compute dtype, the cache with these tokens, None without one). Hidden states of padding
          are finite and mean nothing.
        """
        c = self.config
        if not c.tied:
            self._table("head")  # made here, read by `head`: logits are not made inside
        x_BtD = jnp.take(self._table("embedding"), tokens, axis=0).astype(c.dtype)
        x_BtD = sharding.constrain(x_BtD, self.mesh, ("rows", None, None))
        cos, sin = rope.angles(positions, c)
        shared = {"cos": cos, "sin": sin, "token_mask": token_mask}
        if c.delta is not None:
            shared |= layers.real_tokens_first(token_mask)
        if cache is None:
            x_BtD = self._scan_layers(x_BtD, shared)
        else:
            shared["prompt_mask"], shared["own_mask"] = cached_masks(token_mask, cache, c.window)
            shared["length"] = cache.length
            x_BtD, cache = self._walk_layers(x_BtD, cache, shared)
            cache = kv.advance(cache, token_mask)
        return layers.RMSNorm(c, "embed", name="final_norm")(x_BtD), cache

    def _scan_layers(self, x_BtD: Array, shared: dict[str, Array]) -> Array:
        """One compiled layer or period for all, so that compile time does not grow with depth.

        A few layers are unrolled, but no periods, which are several layers already. A scan stacks what the backward
        pass needs: on a CPU, with 3 layers, that takes a quarter of the time.
        """
        c = self.config
        body = layers.Period if c.period > 1 else layers.recomputed(layers.Layer, c.remat)
        scanned = nn.scan(
            body,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=c.num_layers // c.period,
            unroll=c.num_layers if c.period == 1 and c.num_layers <= _MOST_UNROLLED else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        return scanned(c, self.mesh, name="layers")(x_BtD, None, shared)[0]

    def _walk_layers(
        self, x_BtD: Array, cache: kv.KVCache, shared: dict[str, Array]
    ) -> tuple[Array, kv.KVCache]:
        """The same layers one after the other, so that each owns its cache as a buffer of its own.

        In a scan, every layer's weights and cache would be sliced out, that is copied, for every token.
        """
        c, caches = self.config, []
        stacked = self.get_variable("params", "layers")
        for index, layer_cache in enumerate(cache.layers):
            layer = layers.Layer(c, self.mesh, c.is_linear(index), parent=None)
            params = layer_params(stacked, index)
            x_BtD, layer_cache = layer.apply({"params": params}, x_BtD, layer_cache, shared)
            caches.append(layer_cache)
        return x_BtD, cache._replace(layers=tuple(caches))

    def _table(self, name: str) -> Array:
        c = self.config
        # Tied, it is the head too: rows of norm about 1 keep the first logits near unit size.
        init = nn.initializers.normal(c.d_model**-0.5)
        return self.param(
            name,
            nn.with_logical_partitioning(init, ("vocab", "embed")),
            (c.vocab_size, c.d_model),
            jnp.dtype(c.param_dtype),
        )


def forward(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "B t"],
    token_mask: Bool[Array, "B t"],
    cache: kv.KVCache | None = None,
    *,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "B t D"], kv.KVCache | None]:
    """`Transformer` with positions made from the masks: the one way into the model.

    Args:
      config: of the model.
      params: as `init_params` gives.
      tokens: [B, t].
      token_mask: [B, t], False on padding.
      cache: what was read before.
      mesh: devices that share the rows; None on one device.
    Returns:
      ([B, t, D] hidden states in the compute dtype, cache or None).
    Example:
      >>> config = PRESETS["tiny"]
      >>> params = init_params(config, jax.random.key(0))
      >>> tokens = jnp.asarray([[0, 5, 7]])
      >>> forward(config, params, tokens, tokens > 0)[0].shape
      (1, 3, 64)
    """
    positions = positions_from_mask(token_mask, cache)
    return Transformer(config, mesh).apply({"params": params}, tokens, positions, token_mask, cache)


def _init(config: ModelConfig, key: Any) -> Any:
    tokens = jnp.zeros((1, 1), jnp.int32)
    return Transformer(config).init(key, tokens, tokens, jnp.ones((1, 1), bool))["params"]


# Compiled as one: run by itself, every small operation in it would be compiled alone.
_init_unboxed = jax.jit(lambda config, key: nn.unbox(_init(config, key)), static_argnums=0)


def init_params(config: ModelConfig, key: Key[Array, ""]) -> Params:
    """Random parameters: a plain nested dict of arrays in `param_dtype`; layers are stacked on axis 0.

    Weights are drawn with variance 1 / fan-in, embeddings with variance 1 / D.
    """
    return _init_unboxed(config, key)


def param_shapes(config: ModelConfig) -> Params:
    """The tree of `init_params` with ShapeDtypeStructs instead of arrays; nothing is computed."""
    return jax.eval_shape(lambda key: nn.unbox(_init(config, key)), jax.random.key(0))


def logical_axes(config: ModelConfig) -> Params:
    """The tree of `init_params` with a tuple of axis names instead of each array, for `sharding.param_shardings`.

    Example:
      >>> logical_axes(PRESETS["tiny"])["layers"]["mlp"]["down"]
      ('layers', 'mlp', 'embed')
    """
    boxed = jax.eval_shape(lambda key: _init(config, key), jax.random.key(0))
    is_box = lambda x: isinstance(x, nn.LogicallyPartitioned)  # noqa: E731
    return jax.tree.map(lambda box: tuple(box.names), boxed, is_leaf=is_box)


def head(params: Params) -> Float[Array, "V D"]:
    """Output projection: the head's own table, or the embedding where they are tied."""
    return jnp.asarray(params["head"] if "head" in params else params["embedding"])


def logits(params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """hidden head^T in float32, multiplied in the dtype of `hidden`. For a few positions only."""
    return jnp.einsum(
        "...D,VD->...V",
        hidden,
        head(params).astype(hidden.dtype),
        preferred_element_type=jnp.float32,
    )


def layer_params(all_layers: Params, index: int) -> Params:
    """Parameters of one layer, from the stacked tree of `init_params` or from that of `unstack_layers`."""
    if _unstacked_name(0) in all_layers:
        return all_layers[_unstacked_name(index)]
    if layers.place_name(0) in all_layers:
        period = len(all_layers)
        all_layers, index = all_layers[layers.place_name(index % period)], index // period
    return jax.tree.map(lambda x: x[index], all_layers)


def unstack_layers(config: ModelConfig, params: Params) -> Params:
    """Parameters with layers apart, {"layers": {"layer_0": ...}}: what a loop over tokens reads without slicing."""
    apart = {
        _unstacked_name(i): layer_params(params["layers"], i) for i in range(config.num_layers)
    }
    return {**params, "layers": apart}


def _unstacked_name(index: int) -> str:
    return f"layer_{index}"


def compute_params(config: ModelConfig, params: Params) -> Params:
    """Parameters as loops should read them: matrices in the compute dtype, norms and decays as they are.

    The forward pass casts them anyway; a loop over tokens would do so once per token.
    """

    def cast(path, x):
        return x if path[-1].key in _NOT_CAST else x.astype(config.dtype)

    return jax.tree_util.tree_map_with_path(cast, params)
