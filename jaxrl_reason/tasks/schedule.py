"""Which problems of a data set an update asks: a pure function, so that resuming needs one integer.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import numpy as np


def epoch_indices(size: int, seed: int, update: int, num: int, attempt: int = 0) -> list[int]:
    """Indices update * num, ... of an endless sequence of permutations of 0..size-1.

    For each (seed, attempt) there is one sequence: with a constant `num`, updates 0, 1, ... meet every index once
    before any comes again. Refills (attempt 1, 2, ...) walk through sequences of their own, so that they take nothing
    from later updates.

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
    chosen, epoch, order = [], -1, np.zeros(0, int)
    for position in range(update * num, (update + 1) * num):
        if position // size != epoch:
            epoch = position // size
            stream = np.random.SeedSequence(seed, spawn_key=(epoch, attempt))
            order = np.random.default_rng(stream).permutation(size)
        chosen.append(int(order[position % size]))
    return chosen
