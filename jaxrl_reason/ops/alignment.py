"""Exact Levenshtein alignment of token ids, batched and jitted, and what is read off it.

Device side, jit-safe. Reads: token ids and masks. Writes: nothing.

Rows are compacted, trimmed of their common prefix and suffix, and cut into blocks; the dynamic
programme itself is `ops.levenshtein`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from jaxrl_reason.ops import levenshtein
from jaxrl_reason.types import Alignment

# Bytes of tables held at once. Blocks on a CPU are small so that a step stays in its cache.
_TABLE_BYTES = 1 << 29
_CPU_BLOCK_ROWS = 32


def align(
    failed: Int[Array, "B T1"],
    failed_mask: Bool[Array, "B T1"],
    repaired: Int[Array, "B T2"],
    repaired_mask: Bool[Array, "B T2"],
    *,
    block_rows: int | None = None,
) -> Alignment:
    """Levenshtein alignment, D[i,j] = min(D[i-1,j-1] + [f_i != r_j], D[i-1,j] + 1, D[i,j-1] + 1).

    The common prefix, then the common suffix are matched. The backtrace runs from the end and
    prefers match, then substitution, then deletion (of a failed token), then insertion. Edits are
    numbered 0, 1, ... from left to right.

    Args:
      failed: [B, T1] int32, token ids of any value.
      failed_mask: [B, T1] bool, the tokens that count, anywhere in the row; others are ignored.
      repaired: [B, T2] int32, token ids.
      repaired_mask: [B, T2] bool.
      block_rows: rows aligned at a time; changes memory and speed, never the result. None: up to
        32 on a CPU, elsewhere as many as 512 MiB of tables allow.
    Returns:
      Alignment over the columns of the inputs. `first_edit` of an insertion is the column of the
      failed token it stands before, or one past the last failed token; 0 if there is none.
    Raises:
      ValueError: if a mask has another shape than its ids, the row counts differ, an array has no
        column, or block_rows < 1.
    Example:
      >>> ids, mask = jnp.array([[7, 8, 9]]), jnp.ones((1, 3), bool)
      >>> out = align(ids, mask, jnp.array([[7, 5, 9]]), mask)
      >>> print(out.num_edits, out.failed_mask)
      [1] [[False  True False]]

    Source: Myers 1999 (JACM 46:3) in the form of Hyyro 2003; the skew, the moving band and the
      tie-breaks are ours. IOP, arXiv 2605.05226, marks the differing tokens of both sides.
    """
    shapes = f"failed {failed.shape}, its mask {failed_mask.shape}, repaired {repaired.shape}, "
    shapes += f"its mask {repaired_mask.shape}"
    if failed.shape != failed_mask.shape or repaired.shape != repaired_mask.shape:
        raise ValueError(f"{shapes}: give each mask the shape of its ids")
    if failed.shape[0] != repaired.shape[0]:
        raise ValueError(f"{shapes}: pass one failed and one repaired row per pair")
    if min(failed.shape[1], repaired.shape[1]) < 1:
        raise ValueError(f"{shapes}: the least is 1 column, add one of padding")
    if block_rows is not None and block_rows < 1:
        raise ValueError(f"block_rows is {block_rows}, the least is 1: raise it or pass None")
    block_rows = _choose_block(*failed.shape, repaired.shape[1], block_rows)
    return _align(failed, failed_mask, repaired, repaired_mask, block_rows=block_rows)


def window_masks(
    alignment: Alignment, num_edits: Int[Array, " B"] | Int[Array, ""] | int
) -> tuple[Bool[Array, "B T1"], Bool[Array, "B T2"]]:
    """Tokens of both sides that the first K edits touch: 0 <= edit id < K.

    Args:
      alignment: of B pairs.
      num_edits: K, int or [B] int, at least 1; any K >= alignment.num_edits selects every edit.
    Returns:
      [B, T1] and [B, T2] bool; False on padding.
    Example:
      >>> ids, mask = jnp.array([[7, 8, 9]]), jnp.ones((1, 3), bool)
      >>> out = align(ids, mask, jnp.array([[5, 8, 6]]), mask)
      >>> print(window_masks(out, 1)[0])
      [[ True False False]]

    Source: IOP, arXiv 2605.05226, the first K differences; ours: "first" is edit order, and both
      sides are cut at the same edit.
    """
    limit = jnp.broadcast_to(num_edits, alignment.num_edits.shape)[:, None]
    failed, repaired = alignment.failed_edit_ids, alignment.repaired_edit_ids
    return (failed >= 0) & (failed < limit), (repaired >= 0) & (repaired < limit)


def cut_points(
    alignment: Alignment,
    failed_mask: Bool[Array, "B T1"],
    repaired_mask: Bool[Array, "B T2"],
    num_edits: Int[Array, " B"] | Int[Array, ""] | int,
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """Tokens consumed by the first K edits: repaired[:r] + failed[f:] applies exactly those.

    Args:
      alignment: of B pairs.
      failed_mask: [B, T1] bool, as it was aligned.
      repaired_mask: [B, T2] bool, as it was aligned.
      num_edits: K, int or [B] int, at least 1.
    Returns:
      f [B] and r [B] int, in masked tokens, not columns: those up to and including edit K - 1.
      K >= alignment.num_edits gives the full lengths.
    Example:
      >>> ids, mask = jnp.array([[7, 8, 9]]), jnp.ones((1, 3), bool)
      >>> out = align(ids, mask, jnp.array([[5, 8, 6]]), mask)
      >>> print(*cut_points(out, mask, mask, 1))
      [1] [1]

    Source: IOP, arXiv 2605.05226, the graft of the first K differences, read as a splice.
    """
    limit = jnp.broadcast_to(num_edits, alignment.num_edits.shape)
    last = limit[:, None] - 1

    def side(ids, mask):
        hit = ids == last
        before = jnp.arange(ids.shape[1])[None] < jnp.argmax(hit, 1)[:, None]
        kept = jnp.sum(before & mask & (ids < 0), 1)
        return hit.any(1), kept, jnp.sum((ids >= 0) & (ids <= last), 1), jnp.sum(mask, 1)

    hit, kept_failed, edited_failed, num_failed = side(alignment.failed_edit_ids, failed_mask)
    _, kept_repaired, edited_repaired, num_repaired = side(
        alignment.repaired_edit_ids, repaired_mask
    )
    # Kept tokens come in pairs, so either side that holds the edit knows how many stand before it.
    kept = jnp.where(hit, kept_failed, kept_repaired)
    whole = limit >= alignment.num_edits
    return (
        jnp.where(whole, num_failed, kept + edited_failed),
        jnp.where(whole, num_repaired, kept + edited_repaired),
    )


def first_difference(alignment: Alignment) -> Int[Array, " B"]:
    """Column of the failed side where the first edit happens; -1 where the pair is equal.

    Args:
      alignment: of B pairs.
    Returns:
      [B] int, the `first_token` that `prefix_mask` takes.
    Example:
      >>> ids, mask = jnp.array([[7, 8, 9]]), jnp.ones((1, 3), bool)
      >>> print(first_difference(align(ids, mask, jnp.array([[7, 8, 6]]), mask)))
      [2]

    Source: ours.
    """
    return alignment.first_edit


def prefix_mask(
    completion_mask: Bool[Array, "B T"], first_token: Int[Array, " B"]
) -> Bool[Array, "B T"]:
    """Completion tokens before column `first_token`; the whole completion where it is -1.

    Args:
      completion_mask: [B, T] bool.
      first_token: [B] int, column; -1: no error. Other negative codes give an empty prefix.
    Returns:
      [B, T] bool, a subset of completion_mask.
    Example:
      >>> print(prefix_mask(jnp.array([[False, True, True]]), jnp.array([2])))
      [[False  True False]]

    Source: VPPO, arXiv 2601.18984, the good prefix before the first error.
    """
    before = jnp.arange(completion_mask.shape[1])[None] < first_token[:, None]
    return completion_mask & (before | (first_token[:, None] == -1))


def _choose_block(rows: int, t1: int, t2: int, block_rows: int | None) -> int:
    if block_rows is None:
        words = levenshtein.num_words(t1)
        # Two tables of 4-byte words.
        block_rows = max(1, _TABLE_BYTES // (2 * 4 * words * (t2 + words)))
        if jax.default_backend() == "cpu":
            block_rows = min(block_rows, _CPU_BLOCK_ROWS)
    # Blocks of one size, or padding rows would cost as much as real ones.
    num_blocks = max(1, -(-rows // block_rows))
    return max(1, -(-rows // num_blocks))


@functools.partial(jax.jit, static_argnames="block_rows")
def _align(failed, failed_mask, repaired, repaired_mask, *, block_rows: int) -> Alignment:
    left, failed_rank, num_failed = _compact(failed, failed_mask)
    right, repaired_rank, num_repaired = _compact(repaired, repaired_mask)
    pairs, prefix = _trim(levenshtein.Pairs(left, right, num_failed, num_repaired))
    edits = _in_blocks(pairs, block_rows)

    def spread(ids, mask, rank):
        """Ids of trimmed tokens -> columns of the input, numbered from the left."""
        place = rank - prefix[:, None]
        here = levenshtein.take(ids, place)
        touched = mask & (place >= 0) & (place < ids.shape[1]) & (here >= 0)
        return jnp.where(touched, edits.num_edits[:, None] - 1 - here, -1)

    failed_ids = spread(edits.failed_ids, failed_mask, failed_rank)
    repaired_ids = spread(edits.repaired_ids, repaired_mask, repaired_rank)
    # The move after the common prefix is an edit, always: its column is that of the next token.
    columns = jnp.arange(failed.shape[1])[None]
    following = failed_mask & (failed_rank == prefix[:, None])
    end = jnp.max(jnp.where(failed_mask, columns + 1, 0), 1)
    first = jnp.where(following.any(1), jnp.argmax(following, 1), end)
    return Alignment(
        failed_mask=failed_ids >= 0,
        repaired_mask=repaired_ids >= 0,
        num_edits=edits.num_edits,
        first_edit=jnp.where(edits.num_edits > 0, first, -1),
        failed_edit_ids=failed_ids,
        repaired_edit_ids=repaired_ids,
    )


def _compact(ids: Int[Array, "B T"], mask: Bool[Array, "B T"]):
    """Tokens that count, moved to the front of their row; the place of each; and their number."""
    rank = jnp.cumsum(mask, 1, dtype=jnp.int32) - 1
    place = jnp.where(mask, rank, ids.shape[1])
    rows = jnp.arange(ids.shape[0])[:, None]
    packed = jnp.zeros_like(ids).at[rows, place].set(ids, mode="drop")
    return packed, rank, rank[:, -1] + 1


def _trim(pairs: levenshtein.Pairs) -> tuple[levenshtein.Pairs, Int[Array, " B"]]:
    """Drop the common prefix, then the common suffix; also returns the length of that prefix."""
    a, b, m, n = pairs
    width = min(a.shape[1], b.shape[1])
    k = jnp.arange(width)[None]

    def run(same, limit):
        return jnp.min(jnp.where(same & (k < limit[:, None]), width, k), 1)

    prefix = run(a[:, :width] == b[:, :width], jnp.minimum(m, n))
    m, n = m - prefix, n - prefix
    start = prefix[:, None]
    a, b = (levenshtein.take(x, start + jnp.arange(x.shape[1])[None]) for x in (a, b))
    a_end, b_end = levenshtein.take(a, m[:, None] - 1 - k), levenshtein.take(b, n[:, None] - 1 - k)
    suffix = run(a_end == b_end, jnp.minimum(m, n))
    return levenshtein.Pairs(a, b, m - suffix, n - suffix), prefix


def _in_blocks(pairs: levenshtein.Pairs, block_rows: int) -> levenshtein.Edits:
    rows = pairs.num_failed.shape[0]
    extra = -rows % block_rows

    def split(x):
        x = jnp.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(-1, block_rows, *x.shape[1:])

    if rows == block_rows:
        return levenshtein.find_edits(pairs)
    edits = lax.map(levenshtein.find_edits, jax.tree.map(split, pairs))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:rows], edits)
