"""Keys and values of tokens already read, in two parts: prompts kept once, completions written in place.

Device side, jit-safe. Reads: nothing. Writes: nothing.

Each layer has buffers of its own, with the heads before the columns: attention then reads a head as one contiguous
matrix. On a CPU this halves the time of attention against one [L, B, C, K, E] array, which is copied out by layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class LayerCache(NamedTuple):
    """Keys and values of one layer: N prompts of P columns, B rows of C columns, K key heads of width E."""

    prompt_k: Float[Array, "N K P E"]
    prompt_v: Float[Array, "N K P E"]
    own_k: Float[Array, "B K C E"]  # columns from `length` on hold nothing yet
    own_v: Float[Array, "B K C E"]


class KVCache(NamedTuple):
    """Keys and values of all layers, and which columns are real tokens.

    Row b belongs to prompt b // G, where G = B / N; a prompt is never repeated for its G samples. While prompts are
    being read, the prompt part has no columns (P = 0) and the rows' own part is the prompt: `share` turns one into
    the other.
    """

    layers: tuple[LayerCache, ...]
    prompt_mask: Bool[Array, "N P"]  # False on padding
    own_mask: Bool[Array, "B C"]  # False on padding and on columns not written yet
    length: Int[Array, ""]  # own columns written, the same in every row


def empty(
    *, num_layers: int, rows: int, columns: int, num_kv_heads: int, head_dim: int, dtype: Any
) -> KVCache:
    """Cache of `rows` rows with room for `columns` tokens each and no prompt part.

    Example:
      >>> cache = empty(num_layers=2, rows=3, columns=5, num_kv_heads=1, head_dim=4, dtype="float32")
      >>> len(cache.layers), cache.layers[0].own_k.shape, cache.layers[0].prompt_k.shape
      (2, (3, 1, 5, 4), (3, 1, 0, 4))
    """
    own = jnp.zeros((rows, num_kv_heads, columns, head_dim), dtype)
    nothing = jnp.zeros((rows, num_kv_heads, 0, head_dim), dtype)
    return KVCache(
        layers=(LayerCache(nothing, nothing, own, own),) * num_layers,
        prompt_mask=jnp.zeros((rows, 0), bool),
        own_mask=jnp.zeros((rows, columns), bool),
        length=jnp.zeros((), jnp.int32),
    )


def share(cache: KVCache, *, num_samples: int, columns: int) -> KVCache:
    """Make what was read the prompt of `num_samples` new rows each, with room for `columns` tokens per row.

    Args:
      cache: of N rows, with no prompt part.
      num_samples: G; row n * G + j is sample j of prompt n.
      columns: C, own columns of the new rows.
    Returns:
      Cache of N * G rows. Nothing is copied per sample.
    Raises:
      ValueError: the cache has a prompt part already.
    Example:
      >>> read = empty(num_layers=2, rows=3, columns=5, num_kv_heads=1, head_dim=4, dtype="float32")
      >>> cache = share(read, num_samples=2, columns=7)
      >>> cache.layers[0].prompt_k.shape, cache.layers[0].own_k.shape
      ((3, 1, 5, 4), (6, 1, 7, 4))
    """
    if cache.prompt_mask.shape[1]:
        raise ValueError(
            f"the cache has a prompt part of {cache.prompt_mask.shape[1]} columns; share one made by empty()"
        )
    num_prompts, num_kv_heads, _, head_dim = cache.layers[0].own_k.shape
    fresh = empty(
        num_layers=len(cache.layers),
        rows=num_prompts * num_samples,
        columns=columns,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        dtype=cache.layers[0].own_k.dtype,
    )
    layers = tuple(
        new._replace(prompt_k=old.own_k, prompt_v=old.own_v)
        for new, old in zip(fresh.layers, cache.layers, strict=True)
    )
    return fresh._replace(layers=layers, prompt_mask=cache.own_mask)


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
