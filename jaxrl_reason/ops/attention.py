"""Grouped-query attention: of whole rows by the fastest kernel there is, of a few tokens over blocks of a cache.

Device side, jit-safe, except `pick_kernel` (host side). Reads: queries, keys, values, masks. Writes: nothing.

| kernel | where | memory of t x t |
| --- | --- | --- |
| `dense` | anywhere; the reference | scores in float32 |
| `xla` | anywhere: `jax.nn.dot_product_attention` | scores in float32 |
| `cudnn` | GPU, bfloat16: the same, by cuDNN's flash attention | none |
| `splash` | TPU: the Pallas kernel that comes with JAX; on a CPU interpreted, for tests | none |

Shape letters: B rows, t query tokens, H query heads, K key heads, R = H / K, Dh head width, s keys of a block,
n = B / g rows of a shared block, g rows that share one of its entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from jaxrl_reason import sharding

# (keys [n, s, K, Dh], values [n, s, K, Dh], mask [B, t, s]); n and s differ between blocks.
Block = tuple[Float[Array, "_ _ K Dh"], Float[Array, "_ _ K Dh"], Bool[Array, "B t _"]]

# Finite, so that a row with no allowed key gives 0 and not inf - inf.
_FORBIDDEN = -1e30


def attend(
    q: Float[Array, "B t H Dh"], blocks: Sequence[Block], *, scale: float
) -> Float[Array, "B t H Dh"]:
    """softmax over the keys of all blocks together: out = sum_s softmax(scale * q k_s) v_s.

    Args:
      q: [B, t, H, Dh] queries, float32 or bfloat16.
      blocks: (keys, values, mask) with keys and values [n, s, K, Dh] and mask [B, t, s], True where the query may
        look. K divides H: query head h reads key head h // (H / K). n divides B: entry i of a block serves rows
        i * B / n to (i + 1) * B / n - 1, and is not repeated in memory.
      scale: factor on the scores, usually Dh ** -0.5.
    Returns:
      [B, t, H, Dh] in the dtype of `q`; exactly 0 for a query with no allowed key. Scores, softmax and sums are
      float32.
    Raises:
      ValueError: heads or rows do not divide.
    Example:
      >>> q = jnp.zeros((1, 1, 2, 4))  # equal scores: the mean of the allowed values
      >>> v = jnp.asarray([1.0, 3.0, 9.0]).reshape(1, 3, 1, 1) * jnp.ones((1, 3, 1, 4))
      >>> mask = jnp.asarray([[[True, True, False]]])
      >>> print(attend(q, [(v, v, mask)], scale=0.5)[0, 0, 0])
      [2. 2. 2. 2.]

    Source: attention as in arXiv 1706.03762, equation 1, with grouped heads (2305.13245). Differs: blocks are joined
      in score space only (largest score and denominator are shared), so a prompt is kept once for all its samples.
    """
    blocks = [block for block in blocks if block[0].shape[1] > 0]
    _check_shapes(q, blocks)
    scores = [_scores(q, k, mask, scale) for k, _, mask in blocks]
    largest_BKRt = jnp.full(_score_shape(q, blocks), _FORBIDDEN, jnp.float32)
    for score_BKRts in scores:
        largest_BKRt = jnp.maximum(largest_BKRt, jnp.max(score_BKRts, axis=-1))
    # The softmax does not depend on the shift, so its gradient through the shift is 0.
    largest_BKRt = jax.lax.stop_gradient(largest_BKRt)
    total_BKRt = jnp.zeros_like(largest_BKRt)
    out_BKRtD = jnp.zeros((*largest_BKRt.shape, q.shape[-1]), jnp.float32)
    for score_BKRts, (_, v, mask) in zip(scores, blocks, strict=True):
        weight_BKRts = jnp.where(
            mask[:, None, None], jnp.exp(score_BKRts - largest_BKRt[..., None]), 0.0
        )
        total_BKRt += jnp.sum(weight_BKRts, axis=-1)
        out_BKRtD += _weighted_values(weight_BKRts, v)
    out_BKRtD /= jnp.where(total_BKRt > 0.0, total_BKRt, 1.0)[..., None]
    return jnp.moveaxis(out_BKRtD, 3, 1).reshape(q.shape).astype(q.dtype)


def _check_shapes(q: Array, blocks: Sequence[Block]) -> None:
    rows = q.shape[0]
    for k, _, _ in blocks:
        _check_heads(q, k)
        if k.shape[0] == 0 or rows % k.shape[0]:
            raise ValueError(
                f"{rows} rows over a block of {k.shape[0]}: the block's size must divide the number of rows"
            )


def _check_heads(q: Array, k: Array) -> None:
    if q.shape[2] % k.shape[2]:
        raise ValueError(
            f"{q.shape[2]} query heads over {k.shape[2]} key heads: the latter must divide the former"
        )


def _score_shape(q: Array, blocks: Sequence[Block]) -> tuple[int, ...]:
    rows, num_queries, num_heads, _ = q.shape
    num_kv_heads = blocks[0][0].shape[2] if blocks else num_heads
    return rows, num_kv_heads, num_heads // num_kv_heads, num_queries


def _scores(q: Array, k: Array, mask: Array, scale: float) -> Array:
    """[B, K, R, t, s] float32. The rows and heads that share an entry are one matrix product with it.

    Written with the summed axis last on both sides: in any other order the backward pass transposes large arrays.
    """
    (rows, t, num_heads, head_dim), (n, s, num_kv_heads, _) = q.shape, k.shape
    g, ratio = rows // n, num_heads // num_kv_heads
    q_ngtKRD = q.reshape(n, g, t, num_kv_heads, ratio, head_dim)
    q_nKmD = q_ngtKRD.transpose(0, 3, 1, 4, 2, 5).reshape(n, num_kv_heads, -1, head_dim)
    k_nKsD = k.transpose(0, 2, 1, 3)
    score = jnp.einsum("nKmD,nKsD->nKms", q_nKmD, k_nKsD, preferred_element_type=jnp.float32)
    score = score.reshape(n, num_kv_heads, g, ratio, t, s)
    score_BKRts = jnp.moveaxis(score, 2, 1).reshape(rows, num_kv_heads, ratio, t, s)
    return jnp.where(mask[:, None, None], scale * score_BKRts, _FORBIDDEN)


def _weighted_values(weight_BKRts: Array, v: Array) -> Array:
    """[B, K, R, t, Dh] float32."""
    (rows, num_kv_heads, ratio, t, s), n = weight_BKRts.shape, v.shape[0]
    weight = weight_BKRts.reshape(n, rows // n, num_kv_heads, ratio, t, s).astype(v.dtype)
    weight_nKms = jnp.moveaxis(weight, 1, 2).reshape(n, num_kv_heads, -1, s)
    v_nKsD = v.transpose(0, 2, 1, 3)
    out = jnp.einsum("nKms,nKsD->nKmD", weight_nKms, v_nKsD, preferred_element_type=jnp.float32)
    out = out.reshape(n, num_kv_heads, rows // n, ratio, t, v.shape[-1])
    return jnp.moveaxis(out, 2, 1).reshape(rows, num_kv_heads, ratio, t, v.shape[-1])


KERNELS = ("dense", "xla", "cudnn", "splash")
_LANES = 128  # of a TPU's vectors; rows and heads are padded to multiples of it


def pick_kernel(name: str, *, platform: str, dtype: str) -> str:
    """The kernel that `model.attention` means on these devices.

    Args:
      name: auto, or one of KERNELS.
      platform: cpu | gpu | tpu, of the devices that will compute.
      dtype: compute dtype, float32 or bfloat16.
    Returns:
      One of KERNELS. `auto` is splash on a TPU, cudnn on a GPU in bfloat16, xla there in float32, dense elsewhere.
    Raises:
      ValueError: these devices, or this dtype, cannot.
    Example:
      >>> pick_kernel("auto", platform="gpu", dtype="bfloat16"), pick_kernel("auto", platform="cpu", dtype="float32")
      ('cudnn', 'dense')
    """
    if name == "auto":
        on_gpu = "cudnn" if dtype == "bfloat16" else "xla"
        return {"tpu": "splash", "gpu": on_gpu}.get(platform, "dense")
    if name not in KERNELS:
        raise ValueError(f"model.attention = {name!r}: must be one of auto, {', '.join(KERNELS)}")
    needed = {"cudnn": "gpu", "splash": "tpu"}.get(name, platform)
    if platform != needed:
        raise ValueError(
            f"model.attention = {name!r}: needs a {needed.upper()}, but the devices are of kind {platform!r};"
            " choose auto, dense or xla"
        )
    if name == "cudnn" and dtype != "bfloat16":
        raise ValueError(
            f"model.attention = 'cudnn': cuDNN has no {dtype}; set model.dtype to bfloat16, or choose xla"
        )
    return name


def attend_rows(
    q: Float[Array, "B t H Dh"],
    k: Float[Array, "B t K Dh"],
    v: Float[Array, "B t K Dh"],
    token_mask: Bool[Array, "B t"],
    *,
    scale: float,
    window: int = 0,
    kernel: str = "dense",
    mesh: Mesh | None = None,
) -> Float[Array, "B t H Dh"]:
    """Causal attention of whole rows: each token over itself and the real tokens before it.

    Args:
      q: [B, t, H, Dh] queries, float32 or bfloat16.
      k: [B, t, K, Dh] keys; K divides H: query head h reads key head h // (H / K).
      v: [B, t, K, Dh] values.
      token_mask: [B, t], False on padding, wherever it stands.
      scale: factor on the scores, usually Dh ** -0.5.
      window: tokens that a token sees, itself included, padding not counted; 0: all before it.
      kernel: one of KERNELS, static; all agree up to rounding.
      mesh: devices that share rows and heads, which splash must be told; None: one device.
    Returns:
      [B, t, H, Dh] in the dtype of `q`; exactly 0 on padding, and padding has no gradient.
    Raises:
      ValueError: heads do not divide, or an unknown kernel.
    Example:
      >>> x = jnp.asarray([9.0, 1.0, 3.0]).reshape(1, 3, 1, 1)
      >>> mask = jnp.asarray([[False, True, True]])
      >>> print(attend_rows(0 * x, x, x, mask, scale=1.0)[0, :, 0, 0])
      [0. 1. 2.]

    Source: FlashAttention-2, arXiv 2307.08691, as cuDNN has it; splash attention of jax.experimental.pallas.
    """
    if kernel not in KERNELS:
        raise ValueError(f"attention kernel {kernel!r}: must be one of {', '.join(KERNELS)}")
    _check_heads(q, k)
    if kernel in ("dense", "xla"):
        mask = causal_mask(token_mask, window)
        out = (
            attend(q, [(k, v, mask)], scale=scale)
            if kernel == "dense"
            else jax.nn.dot_product_attention(
                q, k, v, mask=mask[:, None], scale=scale, implementation="xla"
            )
        )
    elif kernel == "cudnn":
        out = _cudnn(q, k, v, token_mask, scale, window)
    else:
        out = _splash(q, k, v, token_mask, scale, window, mesh)
    return jnp.where(token_mask[..., None, None], out, 0)


def causal_mask(token_mask: Bool[Array, "B t"], window: int = 0) -> Bool[Array, "B t t"]:
    """Which keys (last axis) each query sees: real tokens, none to its right, at most `window` of them.

    Example:
      >>> print(causal_mask(jnp.asarray([[True, True, True]]), window=2)[0].astype(int))
      [[1 0 0]
       [1 1 0]
       [0 1 1]]
    """
    columns = jnp.arange(token_mask.shape[1])
    mask = token_mask[:, None, :] & (columns[None, :] <= columns[:, None])[None]
    if window:
        count = jnp.cumsum(token_mask, axis=1, dtype=jnp.int32)
        mask &= in_window(count, count, window)
    return mask


def in_window(query_count: Array, key_count: Array, window: int) -> Bool[Array, "B t s"]:
    """Whether fewer than `window` tokens lie between, from the numbers of real tokens up to each query and key."""
    return query_count[:, :, None] - key_count[:, None, :] < window


def _cudnn(q, k, v, token_mask, scale, window):
    # cuDNN knows lengths, not masks, without an array of t x t: real tokens go to the front, and back afterwards.
    (q, k, v), back = _to_front((q, k, v), token_mask)
    lengths = jnp.maximum(jnp.sum(token_mask, axis=1, dtype=jnp.int32), 1)
    out = jax.nn.dot_product_attention(
        q,
        k,
        v,
        scale=scale,
        is_causal=True,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        local_window_size=(window - 1, 0) if window else None,
        implementation="cudnn",
    )
    return jnp.take_along_axis(out, back[..., None, None], axis=1)


def _to_front(arrays, token_mask):
    """(arrays with each row's real tokens first, columns that put them back); the order of tokens is kept."""
    order = jnp.argsort(~token_mask, axis=1, stable=True)
    moved = tuple(jnp.take_along_axis(x, order[..., None, None], axis=1) for x in arrays)
    return moved, jnp.argsort(order, axis=1)


def _splash(q, k, v, token_mask, scale, window, mesh):
    if mesh is None:
        return _splash_rows(q, k, v, token_mask, scale, window)
    # The compiler cannot split a Pallas kernel by itself.
    heads, kv_heads = (
        sharding.partition_spec(mesh, ("rows", None, name, None), x.shape)
        for name, x in (("heads", q), ("kv_heads", k))
    )
    if (
        kv_heads[2] is None
    ):  # key heads that do not divide: each device needs those of its query heads
        heads = kv_heads
    rows = sharding.partition_spec(mesh, ("rows", None), token_mask.shape)

    def local(q, k, v, token_mask):
        return _splash_rows(q, k, v, token_mask, scale, window)

    # Its outputs do not say along which axes they vary, so that this cannot be checked.
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(heads, kv_heads, kv_heads, rows),
        out_specs=heads,
        check_vma=False,
    )(q, k, v, token_mask)


def _splash_rows(q, k, v, token_mask, scale, window):
    num_columns, head_dim = q.shape[1], q.shape[3]
    back = None
    if window:  # the kernel counts columns, and padding between tokens would count
        (q, k, v), back = _to_front((q, k, v), token_mask)
        token_mask = jnp.take_along_axis(token_mask, jnp.argsort(back, axis=1), axis=1)
    tile = _tile(num_columns)
    spare = ((0, 0), (0, -num_columns % tile))
    widths = (*spare, (0, 0), (0, -head_dim % _LANES))
    # Scores are not scaled inside. Heads before columns, as the kernel takes them.
    q, k, v = (jnp.pad(x, widths).swapaxes(1, 2) for x in (q * jnp.asarray(scale, q.dtype), k, v))
    segment = jnp.pad(token_mask, spare).astype(jnp.int32)  # tokens and padding see their own kind
    size = (q.shape[2], q.shape[2])
    mask = (
        splash_attention.LocalMask(size, (window - 1, 0), 0)
        if window
        else splash_attention.CausalMask(size)
    )
    kernel = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * q.shape[1]),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=_block_sizes(tile),
        interpret=jax.default_backend() != "tpu",
    )
    segments = splash_attention.SegmentIds(segment, segment)
    out = jax.vmap(kernel)(q, k, v, segments).swapaxes(1, 2)[:, :num_columns, :, :head_dim]
    return out if back is None else jnp.take_along_axis(out, back[..., None, None], axis=1)


def _tile(columns: int) -> int:
    """Columns that the kernel handles at once: many in long rows, with little padding in all."""
    if columns < 8 * _LANES:
        return _LANES
    return 2 * _LANES if columns < 32 * _LANES else 4 * _LANES


def _block_sizes(tile: int) -> splash_attention.BlockSizes:
    return splash_attention.BlockSizes(
        block_q=tile,
        block_kv=tile,
        block_q_dkv=tile,
        block_kv_dkv=tile,
        block_q_dq=tile,
        block_kv_dq=tile,
    )
