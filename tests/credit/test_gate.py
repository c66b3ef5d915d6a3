import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.credit import gate
from jaxrl_reason.ops import alignment
from jaxrl_reason.types import PairAlignment
from tests.credit import helpers


def positions(mask):
    return np.nonzero(mask)[0].tolist()


def gate_positions(alignment, kept, mark=False):
    failed, repaired = gate.gates(alignment, kept, mark_insertion_point=mark)
    return positions(failed), positions(repaired)


# abcde -> abXdYe: edit 0 substitutes c by X, edit 1 inserts Y before e (failed position 4).
PAIR = helpers.align_texts("a b c d e", "a b X d Y e")


def test_edit_positions_by_hand():
    place = gate.edit_positions(PAIR)
    assert place.failed_start.tolist() == [2, 4] and place.repaired_start.tolist() == [2, 4]
    assert place.on_failed.tolist() == [True, False] and place.on_repaired.tolist() == [True, True]


def test_edit_positions_agree_with_a_walk_over_both_sides():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = ([str(x) for x in rng.integers(0, 3, rng.integers(0, 9))] for _ in range(2))
        pair = helpers.align_pair(a, b)
        place = gate.edit_positions(pair)
        i = j = 0
        for edit in range(pair.num_edits):
            while (
                i < len(a)
                and j < len(b)
                and pair.failed_edit_ids[i] < 0
                and pair.repaired_edit_ids[j] < 0
            ):
                assert a[i] == b[j]
                i, j = i + 1, j + 1
            assert (place.failed_start[edit], place.repaired_start[edit]) == (i, j)
            on_failed = i < len(a) and pair.failed_edit_ids[i] == edit
            on_repaired = j < len(b) and pair.repaired_edit_ids[j] == edit
            assert (place.on_failed[edit], place.on_repaired[edit]) == (on_failed, on_repaired)
            i, j = i + on_failed, j + on_repaired
        assert a[i:] == b[j:]


def test_the_alignment_kernel_makes_pairs_that_fit():
    """Rows of the device kernel, unpadded, are alignments in the sense of this module, and the same as the helper's."""
    rng = np.random.default_rng(2)
    sides = [[rng.integers(1, 4, rng.integers(0, 8)).tolist() for _ in range(32)] for _ in range(2)]
    arrays = []
    for side in sides:
        mask = np.arange(8)[None, :] < np.array([len(row) for row in side])[:, None]
        arrays += [np.array([row + [0] * (8 - len(row)) for row in side], np.int32), mask]
    rows = alignment.align(*map(jnp.asarray, arrays))
    for b, (failed, repaired) in enumerate(zip(*sides, strict=True)):
        pair = PairAlignment(
            np.asarray(rows.failed_edit_ids)[b, : len(failed)],
            np.asarray(rows.repaired_edit_ids)[b, : len(repaired)],
            int(rows.num_edits[b]),
        )
        ours = helpers.align_pair(failed, repaired)
        assert pair.num_edits == ours.num_edits
        for place, expected in zip(
            gate.edit_positions(pair), gate.edit_positions(ours), strict=True
        ):
            np.testing.assert_array_equal(place, expected)


def test_gates_keep_the_first_edits_on_both_sides():
    assert gate_positions(PAIR, 2) == ([2], [2, 4])
    assert gate_positions(PAIR, 1) == ([2], [2])
    assert gate_positions(PAIR, 0) == ([], [])
    assert gate_positions(PAIR, 99) == ([2], [2, 4])


def test_insertion_point():
    assert gate_positions(PAIR, 2, mark=True) == ([2, 4], [2, 4])
    # The insertion is edit 1: with one edit kept it is not marked.
    assert gate_positions(PAIR, 1, mark=True) == ([2], [2])
    only = helpers.align_texts("a b", "a X b")
    assert gate_positions(only, 1) == ([], [1])
    assert gate_positions(only, 1, mark=True) == ([1], [1])
    # At the end of the text the last token stands in.
    at_end = helpers.align_texts("a b", "a b X Y")
    assert gate_positions(at_end, 2, mark=True) == ([1], [2, 3])
    # Nothing stands anywhere in an empty text.
    assert gate_positions(helpers.align_texts("", "X"), 1, mark=True) == ([], [0])


def test_deletions_leave_the_repaired_side_empty():
    pair = helpers.align_texts("a X b", "a b")
    assert gate_positions(pair, 1) == ([1], [])
    assert gate_positions(pair, 1, mark=True) == ([1], [])


def test_gates_do_not_alias_the_alignment():
    ids = PAIR.failed_edit_ids.copy()
    gate.gates(PAIR, 2, mark_insertion_point=True)[0][:] = True
    np.testing.assert_array_equal(PAIR.failed_edit_ids, ids)


@pytest.mark.parametrize(
    "failed, repaired, num_edits, message",
    [
        ([-1, 0], [-1], 2, "1 of 2 edits touch no token"),
        ([-1, -1], [-1, 0], 1, "2 failed and 1 repaired tokens are kept"),
        ([1, 0], [0, 1], 2, "must increase"),
        ([0, -1], [0, -1], 0, "stay below 0"),
    ],
)
def test_ids_that_are_no_alignment(failed, repaired, num_edits, message):
    with pytest.raises(ValueError, match=message):
        gate.edit_positions(PairAlignment(np.array(failed), np.array(repaired), num_edits))


def test_negative_kept():
    with pytest.raises(ValueError, match="num_edits_kept = -1"):
        gate.gates(PAIR, -1, mark_insertion_point=False)


def test_clip_scale_by_hand():
    assert gate.clip_scale(100, 4, "none") == 1.0
    assert gate.clip_scale(36, 4, "sqrt") == 3.0  # sqrt(9)
    assert gate.clip_scale(100, 1, "sqrt") == 5.0  # sqrt(100) = 10, capped
    assert gate.clip_scale(7, 7, "sqrt") == 1.0
    assert gate.clip_scale(7, 0, "sqrt") == 1.0
    with pytest.raises(ValueError, match="'linear'"):
        gate.clip_scale(7, 1, "linear")
    with pytest.raises(ValueError, match=r"num_gated = 8: must be in \[0, 7\]"):
        gate.clip_scale(7, 8, "sqrt")
