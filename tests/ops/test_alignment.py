import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from jaxrl_reason.ops import alignment, levenshtein
from jaxrl_reason.types import Alignment

ALL = 1 << 30


def reference(failed, repaired):
    """Edit ids of both sides, number of edits, tokens before the first; by the whole table."""
    p = 0
    while p < min(len(failed), len(repaired)) and failed[p] == repaired[p]:
        p += 1
    s = 0
    while s < min(len(failed), len(repaired)) - p and failed[-1 - s] == repaired[-1 - s]:
        s += 1
    a, b = failed[p : len(failed) - s], repaired[p : len(repaired) - s]
    cost = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(cost[-1][j - 1] + (x != y), cost[-1][j] + 1, row[-1] + 1))
        cost.append(row)
    failed_ids, repaired_ids = np.full(len(failed), -1), np.full(len(repaired), -1)
    i, j, edit = len(a), len(b), cost[-1][-1]
    while i or j:
        here = cost[i][j]
        if i and j and a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            continue
        edit -= 1
        substitute = i and j and here == cost[i - 1][j - 1] + 1
        delete = not substitute and i and here == cost[i - 1][j] + 1
        if substitute or delete:
            i -= 1
            failed_ids[p + i] = edit
        if not delete:
            j -= 1
            repaired_ids[p + j] = edit
    assert edit == 0
    return failed_ids, repaired_ids, cost[-1][-1], p


def pack(rows, width, *, rng=None, left=True):
    """Rows of tokens -> ids and mask; padding holds random tokens where an `rng` is given."""
    ids = np.zeros((len(rows), width), np.int32)
    if rng is not None:
        ids[:] = rng.integers(0, 5, ids.shape)
    mask = np.zeros(ids.shape, bool)
    for b, row in enumerate(rows):
        start = width - len(row) if left else 0
        ids[b, start : start + len(row)] = row
        mask[b, start : start + len(row)] = True
    return jnp.asarray(ids), jnp.asarray(mask)


def align_rows(pairs, t1, t2, **options):
    """Align pairs of token lists; also returns the four inputs."""
    inputs = (
        *pack([a for a, _ in pairs], t1, **options),
        *pack([b for _, b in pairs], t2, **options),
    )
    return alignment.align(*inputs), inputs


def check_rows(pairs, out, inputs):
    """Every field of an Alignment equals the reference."""
    _, failed_mask, _, repaired_mask = (np.asarray(x) for x in inputs)
    out = Alignment(*(np.asarray(x) for x in out))
    for b, (failed, repaired) in enumerate(pairs):
        failed_ids, repaired_ids, num_edits, prefix = reference(failed, repaired)
        assert out.num_edits[b] == num_edits == Levenshtein.distance(failed, repaired)
        np.testing.assert_array_equal(out.failed_edit_ids[b, failed_mask[b]], failed_ids)
        np.testing.assert_array_equal(out.repaired_edit_ids[b, repaired_mask[b]], repaired_ids)
        columns = np.flatnonzero(failed_mask[b])
        past = columns[-1] + 1 if len(columns) else 0
        first = np.append(columns, past)[prefix] if num_edits else -1
        assert out.first_edit[b] == first
    assert (out.failed_edit_ids[~failed_mask] == -1).all()
    assert (out.repaired_edit_ids[~repaired_mask] == -1).all()
    np.testing.assert_array_equal(out.failed_mask, out.failed_edit_ids >= 0)
    np.testing.assert_array_equal(out.repaired_mask, out.repaired_edit_ids >= 0)


def mutate(rng, tokens, rate, vocabulary):
    """Random substitutions, insertions and deletions, a third each."""
    out = []
    for token in tokens:
        kind = rng.integers(3) if rng.random() < rate else -1
        if kind in (0, 1):
            out.append(int(rng.integers(vocabulary)))
        if kind in (-1, 1):
            out.append(token)
    return out


def random_pairs(seed, count, longest, vocabulary):
    """Half unrelated rows, half mutations; lengths from 0."""
    rng = np.random.default_rng(seed)
    pairs = []
    for k in range(count):
        failed = rng.integers(0, vocabulary, rng.integers(longest + 1)).tolist()
        repaired = rng.integers(0, vocabulary, rng.integers(longest + 1)).tolist()
        if k % 2:
            repaired = mutate(rng, failed, rng.choice([0.1, 0.5]), vocabulary)[:longest]
        pairs.append((failed, repaired))
    return pairs


def test_hand_vector():
    # a b c d . e      edit 0: c -> X, a substitution at (2, 2)
    # a b X d Y e      edit 1: Y, repaired 4, is inserted before e, failed 4
    ids = {c: k for k, c in enumerate("abcdeXY")}
    pair = ([ids[c] for c in "abcde"], [ids[c] for c in "abXdYe"])
    out, _ = align_rows([pair], 5, 6)
    assert out.num_edits.tolist() == [2] and out.first_edit.tolist() == [2]
    assert out.failed_edit_ids.tolist() == [[-1, -1, 0, -1, -1]]
    assert out.repaired_edit_ids.tolist() == [[-1, -1, 0, -1, 1, -1]]
    assert np.flatnonzero(out.failed_mask[0]).tolist() == [2]
    assert np.flatnonzero(out.repaired_mask[0]).tolist() == [2, 4]
    # A first edit that inserts names the failed token it stands before.
    assert align_rows([([1, 2], [1, 9, 2])], 3, 3)[0].first_edit.tolist() == [2]


def test_ties_are_broken_as_documented():
    # [1 2] -> [3]: "delete 1, substitute 2" and "substitute 1, delete 2" both cost 2. From the end,
    # at (2, 1), substituting is optimal (1 + D[1,0] = 2): 2 becomes 3, and 1 is deleted before.
    out, _ = align_rows([([1, 2], [3])], 2, 1)
    assert out.failed_edit_ids.tolist() == [[0, 1]] and out.repaired_edit_ids.tolist() == [[1]]
    # [1 1 2] -> [1 3 4 2]: prefix 1 and suffix 2 are trimmed, [1] -> [3 4] stays: 3 is inserted,
    # then 1 becomes 4.
    out, _ = align_rows([([1, 1, 2], [1, 3, 4, 2])], 3, 4)
    assert out.failed_edit_ids.tolist() == [[-1, 1, -1]]
    assert out.repaired_edit_ids.tolist() == [[-1, 0, 1, -1]]


@pytest.mark.parametrize(
    "failed, repaired",
    [
        ([], []),
        ([], [4, 5]),
        ([4, 5], []),
        ([4, 5, 6], [4, 5, 6]),
        ([4, 5, 6], [4, 5]),
        ([4, 5], [4, 5, 6]),
        ([4, 5, 6], [5, 6]),
        ([5, 6], [4, 5, 6]),
        ([4, 4, 4], [4, 4]),
        ([-7, 2**31 - 1, -(2**31)], [-7, 0, -(2**31), 3]),
    ],
    ids=str,
)
@pytest.mark.parametrize("left", [True, False])
def test_edges(failed, repaired, left):
    out, inputs = align_rows([(failed, repaired)], 4, 5, left=left)
    check_rows([(failed, repaired)], out, inputs)


# Lengths around the word of 31 rows; two letters make ties the rule.
@pytest.mark.parametrize(
    "count, longest, vocabulary", [(2000, 12, 2), (1000, 35, 3), (150, 95, 2), (150, 95, 30)]
)
def test_random_pairs_equal_the_reference(count, longest, vocabulary):
    pairs = random_pairs(longest + vocabulary, count, longest, vocabulary)
    check_rows(pairs, *align_rows(pairs, longest, longest + 3, rng=np.random.default_rng(0)))


def test_masks_may_select_any_columns():
    rng = np.random.default_rng(3)
    failed, repaired = (rng.integers(0, 4, (64, t)).astype(np.int32) for t in (40, 50))
    failed_mask, repaired_mask = rng.random((64, 40)) < 0.6, rng.random((64, 50)) < 0.6
    inputs = tuple(map(jnp.asarray, (failed, failed_mask, repaired, repaired_mask)))
    pairs = [
        (failed[b, failed_mask[b]].tolist(), repaired[b, repaired_mask[b]].tolist())
        for b in range(64)
    ]
    check_rows(pairs, alignment.align(*inputs), inputs)


def test_padding_ids_and_side_do_not_matter():
    pairs = random_pairs(5, 50, 20, 3)
    plain, _ = align_rows(pairs, 24, 26)
    dirty, _ = align_rows(pairs, 24, 26, rng=np.random.default_rng(1))
    jax.tree.map(np.testing.assert_array_equal, plain, dirty)
    right, inputs = align_rows(pairs, 24, 26, left=False)
    check_rows(pairs, right, inputs)
    np.testing.assert_array_equal(right.num_edits, plain.num_edits)


def graft(failed, repaired, cut):
    return repaired[: cut[1]] + failed[cut[0] :]


def test_grafting_k_edits_leaves_the_others():
    pairs = random_pairs(9, 300, 30, 4)
    out, (_, failed_mask, _, repaired_mask) = align_rows(pairs, 30, 30)
    cuts = jax.jit(alignment.cut_points)
    masks = jax.jit(alignment.window_masks)
    for k in (1, 2, 5, ALL):
        ends = np.stack(cuts(out, failed_mask, repaired_mask, k), 1)
        failed_window, repaired_window = (np.asarray(x) for x in masks(out, k))
        for b, (failed, repaired) in enumerate(pairs):
            left = max(0, int(out.num_edits[b]) - k)
            assert Levenshtein.distance(graft(failed, repaired, ends[b]), repaired) == left
            if left == 0:
                assert ends[b].tolist() == [len(failed), len(repaired)]
            # The window is what was cut, less the kept tokens.
            for window, side, mask, ids in (
                (failed_window, 0, failed_mask, out.failed_edit_ids),
                (repaired_window, 1, repaired_mask, out.repaired_edit_ids),
            ):
                before = np.cumsum(mask[b]) <= ends[b, side]
                np.testing.assert_array_equal(window[b], before & (np.asarray(ids)[b] >= 0))


def test_num_edits_per_row():
    pair = ([1, 2, 3, 4], [9, 2, 8, 4, 7])
    out, (_, failed_mask, _, repaired_mask) = align_rows([pair] * 3, 4, 5)
    k = jnp.array([1, 2, 3])
    # 1 -> 9, 3 -> 8, insert 7: edit 0 ends after (1, 1), edit 1 after (3, 3), edit 2 at (4, 5).
    failed_cut, repaired_cut = alignment.cut_points(out, failed_mask, repaired_mask, k)
    assert failed_cut.tolist() == [1, 3, 4] and repaired_cut.tolist() == [1, 3, 5]
    failed_window, repaired_window = alignment.window_masks(out, k)
    assert failed_window.sum(1).tolist() == [1, 2, 2]
    assert repaired_window.sum(1).tolist() == [1, 2, 3]


def test_good_prefix_ends_at_the_first_difference():
    # Left padding of 1: failed tokens stand in columns 1..4.
    pairs = [
        ([1, 2, 3, 4], [1, 2, 9, 4]),
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([1, 2, 3, 4], [1, 2, 3, 4, 5]),
    ]
    out, (_, failed_mask, _, _) = align_rows(pairs, 5, 5)
    first = alignment.first_difference(out)
    assert first.tolist() == [3, -1, 5]
    assert alignment.prefix_mask(failed_mask, first).tolist() == [
        [False, True, True, False, False],
        [False, True, True, True, True],
        [False, True, True, True, True],
    ]


# A band is exact, and known to be, wherever the distance is at most 32 * half.
@pytest.mark.parametrize("half", [1, 2, 5])
def test_band_equals_the_full_programme(half):
    rng = np.random.default_rng(half)
    failed = [rng.integers(0, 3, 390).tolist() for _ in range(24)]
    pairs = [
        (a, mutate(rng, a, rate, 3)[:400])
        for a, rate in zip(failed, [0.02, 0.1, 0.9] * 8, strict=True)
    ]
    # Shifts by more than the band, and one word less than its limit.
    pairs += [(a, a[31 * half :]) for a in failed[:2]] + [(a[33 * half :], a) for a in failed[2:4]]
    lengths = (jnp.array([len(row) for row in side]) for side in zip(*pairs, strict=True))
    tokens = (pack([pair[k] for pair in pairs], 400, left=False)[0] for k in (0, 1))
    rows = levenshtein.Pairs(*tokens, *lengths)

    @jax.jit
    def both(rows):
        tables = levenshtein._fill(rows, half)
        full = levenshtein._backtrace(rows, levenshtein._fill(rows, None), None)
        return (
            levenshtein._band_distance(rows, tables, half),
            levenshtein._backtrace(rows, tables, half),
            full,
        )

    bound, band, full = jax.tree.map(np.asarray, both(rows))
    truth = np.array([Levenshtein.distance(a, b) for a, b in pairs])
    np.testing.assert_array_equal(full.num_edits, truth)
    accepted = bound <= 32 * half
    np.testing.assert_array_equal(accepted, truth <= 32 * half)
    assert accepted.any() and not accepted.all()
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[accepted], y[accepted]), band, full)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_long_rows(rate):
    # 2,048 tokens: 5% stays in the band of 160 edits, 30% does not.
    rng = np.random.default_rng(17)
    failed = [rng.integers(0, 500, 2048).tolist() for _ in range(3)]
    pairs = [(row, mutate(rng, row, rate, 500)) for row in failed]
    out, (_, failed_mask, _, repaired_mask) = align_rows(pairs, 2048, 2300)
    distances = [Levenshtein.distance(a, b) for a, b in pairs]
    assert (max(distances) <= 160) == (rate == 0.05)
    assert out.num_edits.tolist() == distances
    # The edits make the repaired row in that many moves: kept tokens agree, ids are 0..d-1.
    for b, (a, r) in enumerate(pairs):
        failed_ids = np.asarray(out.failed_edit_ids[b])[np.asarray(failed_mask[b])]
        repaired_ids = np.asarray(out.repaired_edit_ids[b])[np.asarray(repaired_mask[b])]
        np.testing.assert_array_equal(np.array(a)[failed_ids < 0], np.array(r)[repaired_ids < 0])
        assert set(failed_ids) | set(repaired_ids) == set(range(-1, distances[b]))


def test_blocks_of_rows_change_nothing():
    pairs = random_pairs(21, 37, 40, 3)
    out, inputs = align_rows(pairs, 40, 40)
    jax.tree.map(np.testing.assert_array_equal, out, alignment.align(*inputs, block_rows=5))


def test_rows_are_independent():
    pairs = random_pairs(22, 8, 40, 3)
    out, _ = align_rows(pairs, 40, 40)
    back, _ = align_rows(pairs[::-1], 40, 40)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[::-1]), out, back)


def test_traces_once_for_one_shape():
    before = alignment._align._cache_size()
    for seed in range(3):
        align_rows(random_pairs(seed, 7, 13, 3), 13, 14)
    assert alignment._align._cache_size() == before + 1


def test_works_inside_jit_and_eagerly():
    pairs = random_pairs(2, 3, 4, 2)
    out, inputs = align_rows(pairs, 4, 4)
    jax.tree.map(np.testing.assert_array_equal, out, jax.jit(alignment.align)(*inputs))
    eager = alignment._align.__wrapped__(*inputs, block_rows=3)
    jax.tree.map(np.testing.assert_array_equal, out, eager)


def test_bad_shapes_are_named():
    ids, mask = jnp.zeros((2, 3), jnp.int32), jnp.ones((2, 3), bool)
    with pytest.raises(ValueError, match=r"block_rows is 0, the least is 1"):
        alignment.align(ids, mask, ids, mask, block_rows=0)
    none, empty = jnp.zeros((2, 0), jnp.int32), jnp.ones((2, 0), bool)
    with pytest.raises(ValueError, match=r"repaired \(2, 0\).*the least is 1 column"):
        alignment.align(ids, mask, none, empty)
