"""Which problems of a data set an update asks: a pure function, so that resuming needs one integer.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import numpy as np


def epoch_indices(size: int, seed: int, update: int, num: int, attempt: int = 0) -> list[int]:
    """Indices update * num, ... of an endless sequence of permutations of 0..size-1; none twice in one update.

    For each (seed, attempt) there is one sequence: with a constant `num`, updates 0, 1, ... meet every index once
    before any comes again, and an update that begins an epoch leaves out, for the time being, what it took from the
    end of the one before. Refills (attempt 1, 2, ...) walk through sequences of their own, so that they take nothing
    from later updates; what earlier attempts of the update asked is replaced. An index comes twice only where the data
    set is smaller than what the update asks.

    Args:
      size: of the data set, >= 1.
      seed, update, attempt, num: int >= 0.
    Returns:
      `num` indices in [0, size); a pure function of the arguments.
    Example:
      >>> first, second = epoch_indices(5, 0, 0, 3), epoch_indices(5, 0, 1, 3)
      >>> sorted(first + second[:2])
      [0, 1, 2, 3, 4]
    """
    asked: set[int] = set()
    for earlier in range(attempt):
        asked |= set(_new(size, seed, update, num, earlier, asked))
    return _new(size, seed, update, num, attempt, asked)


def _new(size: int, seed: int, update: int, num: int, attempt: int, asked: set[int]) -> list[int]:
    """What one attempt asks, with other indices in the place of those that were asked before."""
    chosen, epoch, order = [], -1, np.zeros(0, int)
    for position in range(update * num, (update + 1) * num):
        if position // size != epoch:
            epoch = position // size
            order = _order(size, seed, num, attempt, epoch)
        chosen.append(int(order[position % size]))
    if asked.isdisjoint(chosen) or size < len(asked) + num:
        return chosen
    stream = np.random.SeedSequence(seed, spawn_key=(update, attempt, 1))
    used = asked | set(chosen)
    spare = (i for i in np.random.default_rng(stream).permutation(size).tolist() if i not in used)
    return [next(spare) if i in asked else i for i in chosen]


def _permutation(size: int, seed: int, attempt: int, epoch: int) -> np.ndarray:
    stream = np.random.SeedSequence(seed, spawn_key=(epoch, attempt))
    return np.random.default_rng(stream).permutation(size)


def _order(size: int, seed: int, num: int, attempt: int, epoch: int) -> np.ndarray:
    """The permutation of an epoch; what the update across its beginning asked before stands behind that update."""
    if num > size:
        return _permutation(size, seed, attempt, epoch)
    # Where the data set is large, what is moved stays clear of the epoch's end: the epochs before the last do not
    # matter. Else they do, back to one that begins with an update of its own; there are less than `num` of them.
    first = max(epoch - 1, 0)
    while size < 3 * num and first * size % num:
        first -= 1
    order = _permutation(size, seed, attempt, first)
    for current in range(first + 1, epoch + 1):
        before, order = order, _permutation(size, seed, attempt, current)
        head = -current * size % num  # positions that belong to the update across the border
        taken = set(before[size - (num - head) :].tolist()) if head else set()
        if not taken:
            continue
        spare = (j for j in range(head, size) if order[j] not in taken)
        for i in range(head):
            if order[i] in taken:
                j = next(spare)
                order[i], order[j] = order[j], order[i]
    return order
