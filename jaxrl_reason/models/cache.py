"""What layers keep of tokens already read: keys and values in two parts, or a state of fixed size.

Device side, jit-safe. Reads: nothing. Writes: nothing.

Keys and values of prompts are kept once, those of completions written in place. A layer of `delta` keeps a state per
row: each sample of a prompt changes it, so that it is copied for them.

Each layer has buffers of its own, with the heads before the columns: attention then reads a head as one contiguous
matrix. On a CPU this halves the time of attention against one [L, B, C, K, E] array, which is copied out by layer.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_reason.models.model_config import ModelConfig


class LayerCache(NamedTuple):
    """Keys and values of one layer: N prompts of P columns, B rows of C columns, K key heads of width E."""

    prompt_k: Float[Array, "N K P E"]
    prompt_v: Float[Array, "N K P E"]
    own_k: Float[Array, "B K C E"]  # columns from `length` on hold nothing yet
    own_v: Float[Array, "B K C E"]


class StateCache(NamedTuple):
    """State of one layer of `delta`: J key heads of width E, H value heads of width F, W tokens of convolution.

    X = 2 E + F H / J channels are convolved per key head: its query, itself and its values. Zeros before the first
    token.
    """

    state: Float[Array, "B H E F"]  # float32
    last: Float[Array, "B J W-1 X"]  # inputs of the convolution at the last W - 1 real tokens


class KVCache(NamedTuple):
    """What all layers keep, and which columns are real tokens.

    Row b belongs to prompt b // G, where G = B / N; a prompt is never repeated for its G samples. While prompts are
    being read, the prompt part has no columns (P = 0) and the rows' own part is the prompt: `share` turns one into
    the other.
    """

    layers: tuple[LayerCache | StateCache, ...]
    prompt_mask: Bool[Array, "N P"]  # False on padding
    own_mask: Bool[Array, "B C"]  # False on padding and on columns not written yet
    length: Int[Array, ""]  # own columns written, the same in every row


def empty(config: ModelConfig, *, rows: int, columns: int) -> KVCache:
    """Cache of `rows` rows with room for `columns` tokens each and no prompt part, in the compute dtype.

    Example:
      >>> config = ModelConfig(8, 2, 4, num_heads=1, num_kv_heads=1, head_dim=4, d_ff=4)
      >>> cache = empty(config, rows=3, columns=5)
      >>> len(cache.layers), cache.layers[0].own_k.shape, cache.layers[0].prompt_k.shape
      (2, (3, 1, 5, 4), (3, 1, 0, 4))
    """
    kinds = [config.is_linear(i) for i in range(config.num_layers)]
    own, nothing = (
        jnp.zeros((rows, config.num_kv_heads, size, config.head_dim), config.dtype)
        for size in (columns, 0)
    )
    attended = LayerCache(nothing, nothing, own, own)
    return KVCache(
        layers=tuple(empty_state(config, rows) if linear else attended for linear in kinds),
        prompt_mask=jnp.zeros((rows, 0), bool),
        own_mask=jnp.zeros((rows, columns), bool),
        length=jnp.zeros((), jnp.int32),
    )


def empty_state(config: ModelConfig, rows: int) -> StateCache:
    """What a layer of `delta` keeps before the first token of each row: zeros."""
    d = config.delta
    channels = 2 * d.key_dim + d.value_dim * d.num_value_heads // d.num_key_heads
    return StateCache(
        jnp.zeros((rows, d.num_value_heads, d.key_dim, d.value_dim), jnp.float32),
        jnp.zeros((rows, d.num_key_heads, d.conv_width - 1, channels), config.dtype),
    )


def share(cache: KVCache, *, num_samples: int, columns: int) -> KVCache:
    """Make what was read the prompt of `num_samples` new rows each, with room for `columns` tokens per row.

    Args:
      cache: of N rows, with no prompt part.
      num_samples: G; row n * G + j is sample j of prompt n.
      columns: C, own columns of the new rows.
    Returns:
      Cache of N * G rows. No keys and values are copied per sample, only the states of `delta`.
    Raises:
      ValueError: the cache has a prompt part already.
    Example:
      >>> config = ModelConfig(8, 2, 4, num_heads=1, num_kv_heads=1, head_dim=4, d_ff=4)
      >>> read = empty(config, rows=3, columns=5)
      >>> cache = share(read, num_samples=2, columns=7)
      >>> cache.layers[0].prompt_k.shape, cache.layers[0].own_k.shape
      ((3, 1, 5, 4), (6, 1, 7, 4))
    """
    if cache.prompt_mask.shape[1]:
        raise ValueError(
            f"the cache has a prompt part of {cache.prompt_mask.shape[1]} columns; share one made by empty()"
        )
    rows = cache.prompt_mask.shape[0] * num_samples
    return KVCache(
        layers=tuple(_share_layer(layer, num_samples, columns) for layer in cache.layers),
        prompt_mask=cache.own_mask,
        own_mask=jnp.zeros((rows, columns), bool),
        length=jnp.zeros((), jnp.int32),
    )


def _share_layer(
    layer: LayerCache | StateCache, num_samples: int, columns: int
) -> LayerCache | StateCache:
    if isinstance(layer, StateCache):
        return StateCache(*(jnp.repeat(x, num_samples, axis=0) for x in layer))
    num_prompts, num_kv_heads, _, head_dim = layer.own_k.shape
    shape = (num_prompts * num_samples, num_kv_heads, columns, head_dim)
    own = jnp.zeros(shape, layer.own_k.dtype)
    return LayerCache(layer.own_k, layer.own_v, own, own)


def write(
    cache: LayerCache,
    k: Float[Array, "B t K E"],
    v: Float[Array, "B t K E"],
    length: Int[Array, ""],
) -> tuple[LayerCache, Float[Array, "B C K E"], Float[Array, "B C K E"]]:
    """Put t new columns at `length`, in place inside jit.

    Returns:
      (the cache, all its own keys, all its own values), the latter as `ops.attention.attend` takes them.
    """
    spot = (0, 0, length, 0)
    own_k, own_v = (
        jax.lax.dynamic_update_slice(whole, jnp.moveaxis(new, 1, 2).astype(whole.dtype), spot)
        for whole, new in ((cache.own_k, k), (cache.own_v, v))
    )
    cache = cache._replace(own_k=own_k, own_v=own_v)
    return cache, jnp.moveaxis(own_k, 1, 2), jnp.moveaxis(own_v, 1, 2)


def holds_only(cache: LayerCache, num_tokens: int) -> bool:
    """Whether there is room for these tokens alone, so that nothing was read before them; known from the shapes."""
    return cache.prompt_k.shape[2] == 0 and cache.own_k.shape[2] == num_tokens


def prompt_part(cache: LayerCache) -> tuple[Float[Array, "N P K E"], Float[Array, "N P K E"]]:
    """Keys and values of the prompts, as `ops.attention.attend` takes them."""
    return jnp.moveaxis(cache.prompt_k, 1, 2), jnp.moveaxis(cache.prompt_v, 1, 2)


def advance(cache: KVCache, token_mask: Bool[Array, "B t"]) -> KVCache:
    """Count t columns as written, after every layer wrote them."""
    own_mask = jax.lax.dynamic_update_slice(cache.own_mask, token_mask, (0, cache.length))
    return cache._replace(own_mask=own_mask, length=cache.length + token_mask.shape[1])
