"""Levenshtein distance and edits of compacted token rows: the kernel under `ops.alignment`.

Device side, jit-safe. Reads: token ids. Writes: nothing.

Bit-parallel dynamic programme: a word holds the vertical differences of `WORD_ROWS` failed tokens,
and step s lets word w meet repaired token s - w. That skew makes the words of a step independent of
each other: a step is a handful of elementwise operations, and no carry ever crosses a word. The two
bits per cell that the backtrace asks for are kept. Long rows first try a band of words around the
diagonal; the full programme runs where the band proves too narrow.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, UInt

# 31, not 32: the top bit of a word carries the horizontal difference of its last row downwards.
WORD_ROWS = 31
_TOP = np.uint32(1 << WORD_ROWS)
_LOW = np.uint32((1 << WORD_ROWS) - 1)
# Words on each side of the diagonal in the band: exact up to 32 * 5 = 160 edits.
_BAND_HALF = 5
# Matches that the backtrace may skip in one iteration.
_RUN = 16
_Table = UInt[Array, "S L B"]  # word of each step, lane and row


class Pairs(NamedTuple):
    """Compacted rows: the tokens that count stand at the front."""

    failed: Int[Array, "B T1"]
    repaired: Int[Array, "B T2"]
    num_failed: Int[Array, " B"]
    num_repaired: Int[Array, " B"]


class Edits(NamedTuple):
    """Edits of compacted rows, numbered from the right."""

    failed_ids: Int[Array, "B T1"]
    repaired_ids: Int[Array, "B T2"]
    num_edits: Int[Array, " B"]


def num_words(num_tokens: int) -> int:
    """Words that hold so many failed tokens, ceil(num_tokens / 31).

    Args:
      num_tokens: at least 1.
    Returns:
      int, at least 1.
    Example:
      >>> num_words(32)
      2
    """
    return -(-num_tokens // WORD_ROWS)


def take(x: Int[Array, "B T"], columns: Int[Array, "B K"]) -> Int[Array, "B K"]:
    """Entries x[b, columns[b, k]]; columns outside the row give its first or last entry.

    Args:
      x: [B, T] int.
      columns: [B, K] int.
    Returns:
      [B, K] int.
    Example:
      >>> print(take(jnp.array([[7, 8, 9]]), jnp.array([[1, 5]])))
      [[8 9]]
    """
    return jnp.take_along_axis(x, jnp.clip(columns, 0, x.shape[1] - 1), 1)


def find_edits(pairs: Pairs) -> Edits:
    """Edits of each pair; D[i,j] = min(D[i-1,j-1] + [f_i != r_j], D[i-1,j] + 1, D[i,j-1] + 1).

    Args:
      pairs: B rows; tokens beyond num_failed and num_repaired are padding of any value.
    Returns:
      Edits numbered from the right, -1 on kept tokens and padding. Ties prefer match, then
      substitution, then deletion, then insertion, from the end.
    Example:
      >>> row, length = jnp.array([[7, 8, 9]]), jnp.array([3])
      >>> print(find_edits(Pairs(row, jnp.array([[5, 8, 6]]), length, length)).failed_ids)
      [[ 1 -1  0]]

    Source: Myers 1999 (JACM 46:3) in the form of Hyyro 2003; the skew and the moving band are ours.
    """
    # A band that is not much narrower than the whole costs more when it fails than it saves.
    if num_words(pairs.failed.shape[1]) <= 4 * _BAND_HALF:
        return _backtrace(pairs, _fill(pairs, None), None)
    # Else try the band, and run everything where the band may have cut an optimal path.
    tables = _fill(pairs, _BAND_HALF)
    enough = jnp.all(_band_distance(pairs, tables, _BAND_HALF) <= (WORD_ROWS + 1) * _BAND_HALF)
    return lax.cond(
        enough,
        lambda: _backtrace(pairs, tables, _BAND_HALF),
        lambda: _backtrace(pairs, _fill(pairs, None), None),
    )


def _fill(pairs: Pairs, half: int | None) -> tuple[_Table, _Table]:
    """Run the programme on all words, or on a band of 2 * half + 1.

    Returns bits of each cell: it equals its upper-left neighbour; it is its upper neighbour + 1.

    Lane l of step s is word l, or word s // 32 - half + l in a band: along the diagonal a word
    lasts 31 tokens and the next starts 1 step later, so the band moves down every 32 steps and
    covers |i - j| <= 32 * half. Above the band cells grow by 1 to the right, below it by 1
    downwards: costs of real paths. So no cell falls below its true value, and every cell of a path
    of at most 32 * half edits, which cannot leave the band, is exact.
    """
    a, b, m, n = pairs
    rows, words = a.shape[0], num_words(a.shape[1])
    lanes = words if half is None else 2 * half + 1
    side = 0 if half is None else half
    steps = b.shape[1] + words - 1
    # [bit, word, row]: a step reduces over bits, and shifting words copies whole rows.
    pattern = jnp.pad(a, ((0, 0), (0, words * WORD_ROWS - a.shape[1])))
    pattern = pattern.reshape(rows, words, WORD_ROWS).transpose(2, 1, 0)
    pattern = jnp.pad(pattern, ((0, 0), (side, steps // (WORD_ROWS + 1) + side + 1), (0, 0)))
    text = b.T
    bits = (jnp.uint32(1) << jnp.arange(WORD_ROWS, dtype=jnp.uint32))[:, None, None]
    ones = jnp.full((1, rows), _LOW, jnp.uint32)
    zeros = jnp.zeros((1, rows), jnp.uint32)

    def body(s, carry):
        plus, minus, token, diagonal, vertical = carry
        base = 0 if half is None else s // (WORD_ROWS + 1) - half
        moves = 0 if half is None else ((s % (WORD_ROWS + 1) == 0) & (s > 0)).astype(jnp.int32)
        new = lax.dynamic_index_in_dim(text, jnp.clip(s - base, 0, b.shape[1] - 1), 0)
        # above: what the word above has just produced; own: what this word had one step ago.
        above_plus, plus = _shift(ones | _TOP, plus, ones, moves)
        above_minus, minus = _shift(zeros, minus, zeros, moves)
        token = _shift(new, token, new, moves)[0]
        word = base + jnp.arange(lanes)[:, None]
        above_plus = jnp.where(word <= 0, np.uint32(1), above_plus >> WORD_ROWS)
        above_minus = jnp.where(word <= 0, np.uint32(0), above_minus >> WORD_ROWS)
        mine = lax.dynamic_slice_in_dim(pattern, base + side, lanes, 1)
        equal = jnp.sum(jnp.where(mine == token[None], bits, np.uint32(0)), 0, dtype=jnp.uint32)
        # A word that has not met its first token must stay as it is.
        equal = jnp.where(word <= s, equal, np.uint32(0)) | above_minus
        plus, minus = plus & _LOW, minus & _LOW
        same = (((equal & plus) + plus) ^ plus) | equal | minus
        right_plus = ((minus | ~(same | plus)) << 1) | above_plus
        right_minus = ((same & plus) << 1) | above_minus
        plus_out = ((right_minus | ~(same | right_plus)) & _LOW) | (right_plus & _TOP)
        minus_out = (right_plus & same & _LOW) | (right_minus & _TOP)
        diagonal = lax.dynamic_update_index_in_dim(diagonal, same, s, 0)
        vertical = lax.dynamic_update_index_in_dim(vertical, plus_out, s, 0)
        return plus_out, minus_out, token, diagonal, vertical

    # As if lanes had run before step 0: word 0 must find token 0 above itself when it starts.
    start = (
        jnp.full((lanes, rows), _LOW, jnp.uint32),
        jnp.zeros((lanes, rows), jnp.uint32),
        text[jnp.clip(side - 1 - jnp.arange(lanes), 0, b.shape[1] - 1)],
        lax.empty((steps, lanes, rows), jnp.uint32),
        lax.empty((steps, lanes, rows), jnp.uint32),
    )
    needed = jnp.max(n) + (jnp.max(m) + WORD_ROWS - 1) // WORD_ROWS - 1
    return lax.fori_loop(0, needed, body, start)[-2:]


def _shift(top, x, bottom, moves):
    """Rows (above, own) of each lane; `moves` is 1 where every lane goes over to the next word."""
    padded = jnp.concatenate([top, x, bottom])
    above, own = (lax.dynamic_slice_in_dim(padded, moves + k, x.shape[0]) for k in (0, 1))
    return above, own


def _bit(table: _Table, i, j, row, half: int | None) -> Array:
    """Bit of cell (i, j), both counted from 1; anything outside the table gives some bit."""
    i, j = jnp.maximum(i, 1) - 1, jnp.maximum(j, 1) - 1
    word = i // WORD_ROWS
    step = j + word
    lane = word if half is None else word - step // (WORD_ROWS + 1) + half
    cell = table.at[step, lane, row].get(mode="clip")
    return ((cell >> (i % WORD_ROWS).astype(jnp.uint32)) & 1) == 1


def _band_distance(pairs: Pairs, tables: tuple[_Table, _Table], half: int) -> Int[Array, " B"]:
    """Cost of the last cell: |m - n|, plus 1 for each step of its diagonal that is not free."""
    _, _, m, n = pairs
    i = jnp.arange(1, pairs.failed.shape[1] + 1)[None]
    tilt = (m - n)[:, None]
    free = _bit(tables[0], i, i - tilt, jnp.arange(m.shape[0])[:, None], half)
    paid = (i <= m[:, None]) & (i > tilt) & ~free
    return jnp.abs(m - n) + jnp.sum(paid, 1)


def _backtrace(pairs: Pairs, tables: tuple[_Table, _Table], half: int | None) -> Edits:
    a, b, m, n = pairs
    row = jnp.arange(m.shape[0])
    k = jnp.arange(_RUN)[None]

    def body(state):
        i, j, edits = state
        same = take(a, i[:, None] - 1 - k) == take(b, j[:, None] - 1 - k)
        same &= k < jnp.minimum(i, j)[:, None]
        run = jnp.min(jnp.where(same, _RUN, k), 1, initial=_RUN)
        i, j = i - run, j - run
        # A full run may go on, so the edit waits for the next iteration.
        active = (run < _RUN) & ((i > 0) | (j > 0))
        substitute = (i > 0) & (j > 0) & ~_bit(tables[0], i, j, row, half)
        delete = (i > 0) & ~substitute & ((j == 0) | _bit(tables[1], i, j, row, half))
        takes_failed = active & (substitute | delete)
        takes_repaired = active & ~delete
        return (
            i - takes_failed,
            j - takes_repaired,
            Edits(
                put(edits.failed_ids, takes_failed, i - 1, edits.num_edits),
                put(edits.repaired_ids, takes_repaired, j - 1, edits.num_edits),
                edits.num_edits + active,
            ),
        )

    def put(ids, takes, place, edit):
        return ids.at[row, jnp.where(takes, place, ids.shape[1])].set(edit, mode="drop")

    blank = (jnp.full(x.shape, -1, jnp.int32) for x in (a, b))
    none = Edits(*blank, jnp.zeros_like(m))
    return lax.while_loop(lambda x: jnp.any((x[0] > 0) | (x[1] > 0)), body, (m, n, none))[-1]
