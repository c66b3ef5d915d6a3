import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from jaxrl_reason.credit import repair
from tests.credit import helpers


def test_nearest_anchor_takes_the_first_of_the_closest():
    failed = helpers.completion("1 5 2 ; 1 9 ; 0 ; = 0")
    far = helpers.completion("3 3 2 ; 6 2 ; 8 ; = 8")
    near = helpers.completion("1 5 2 ; 1 7 ; 8 ; = 8")
    twin = helpers.completion("1 5 2 ; 1 7 ; 8 ; = 8")
    rng = np.random.default_rng(0)
    chosen = repair.choose_anchor(
        failed, [far, near, twin], kind="nearest", rng=rng, align_fn=helpers.align_fn
    )
    assert chosen is near


def test_nearest_anchor_is_batched_in_one_call_and_agrees_with_rapidfuzz():
    rng = np.random.default_rng(1)
    draw = lambda: helpers.completion(" ".join(map(str, rng.integers(0, 5, rng.integers(1, 9)))))  # noqa: E731
    failed = [draw() for _ in range(20)]
    correct = [[draw() for _ in range(rng.integers(1, 5))] for _ in failed]
    calls = []

    def align_fn(a, b):
        calls.append(len(a))
        return helpers.align_fn(a, b)

    chosen = repair.choose_anchors(failed, correct, kind="nearest", rng=rng, align_fn=align_fn)
    assert calls == [sum(map(len, correct))]
    for f, group, anchor in zip(failed, correct, chosen, strict=True):
        distances = [Levenshtein.distance(f.tokens, c.tokens) for c in group]
        assert anchor is group[distances.index(min(distances))]


def test_random_anchor_is_a_function_of_the_seed_and_reaches_all():
    failed = [helpers.completion("1")] * 40
    group = [helpers.completion(str(n)) for n in range(3)]
    first, second = (
        repair.choose_anchors(failed, [group] * 40, kind="random", rng=np.random.default_rng(7))
        for _ in range(2)
    )
    assert [a.text for a in first] == [a.text for a in second]
    assert {a.text for a in first} == {"0", "1", "2"}


def test_no_failures_need_no_anchor():
    rng = np.random.default_rng(0)

    def never(*args):
        raise AssertionError("nothing to align")

    assert repair.choose_anchors([], [], kind="nearest", rng=rng, align_fn=never) == []


def test_anchor_errors():
    failed, rng = helpers.completion("1"), np.random.default_rng(0)
    with pytest.raises(ValueError, match="no correct completion to repair failure 0"):
        repair.choose_anchor(failed, [], kind="random", rng=rng)
    with pytest.raises(ValueError, match="'shortest': must be random or nearest"):
        repair.choose_anchor(failed, [failed], kind="shortest", rng=rng)
    with pytest.raises(ValueError, match="needs align_fn"):
        repair.choose_anchor(failed, [failed], kind="nearest", rng=rng)
    with pytest.raises(ValueError, match="0 groups of anchors for 1"):
        repair.choose_anchors([failed], [], kind="random", rng=rng)


def test_normalised_distance():
    assert repair.normalised_distance(0, 0, 0) == 0.0
    assert repair.normalised_distance(3, 0, 3) == 1.0
    assert repair.normalised_distance(2, 5, 8) == 0.25
    with pytest.raises(ValueError, match=r"num_edits = 4: must be in \[0, 3\]"):
        repair.normalised_distance(4, 2, 3)


def test_pair_distances_take_lengths_from_the_pair():
    # abcde -> abXdYe: 2 edits, longer text 6 tokens.
    pair = helpers.align_texts("a b c d e", "a b X d Y e")
    np.testing.assert_allclose(
        repair.pair_distances([pair, helpers.align_texts("", "")]), [2 / 6, 0.0]
    )
    assert repair.pair_distances([]).shape == (0,)


def test_repair_score_by_hand():
    # h (r - 0.1 d): 1 (1 - 0.1 * 0.5) = 0.95; 1 (0 - 0.1 * 0.25) = -0.025; 0.
    scores = repair.repair_score(
        [True, True, False], [1.0, 0.0, 1.0], [0.5, 0.25, 0.1], edit_cost=0.1
    )
    np.testing.assert_allclose(scores, [0.95, -0.025, 0.0], atol=1e-12)
    assert float(repair.repair_score(True, 1.0, 0.5, edit_cost=0.2)) == 0.9


def test_selection_needs_honesty_and_a_right_answer():
    choose = lambda h, r, d: repair.select_repair(h, r, d, edit_cost=0.1, threshold=0.5)  # noqa: E731
    # Of three right repairs the third is dishonest; the second has fewer edits than the first.
    assert choose([True, True, False], [1.0, 1.0, 1.0], [0.5, 0.2, 0.0]) == 1
    # A rejected candidate scores 0 > -0.1 d of an honest wrong one: neither is accepted.
    assert choose([False, True], [1.0, 0.0], [0.1, 0.1]) is None
    # Ties go to the first.
    assert choose([True, True], [1.0, 1.0], [0.3, 0.3]) == 0
    # The threshold itself counts as correct.
    assert choose([True], [0.5], [0.0]) == 0
    assert choose([], [], []) is None


def test_graded_rewards_never_lose_an_acceptable_repair():
    # Scores: 0.45 - 0 = 0.45 (below the threshold), 0.5 - 0.9 * 0.9 = -0.31 (acceptable), 0 (dishonest).
    chosen = repair.select_repair(
        [True, True, False], [0.45, 0.5, 1.0], [0.0, 0.9, 0.0], edit_cost=0.9, threshold=0.5
    )
    assert chosen == 1


def test_selection_of_binary_rewards_is_the_accepted_argmax_of_the_literal_score():
    rng = np.random.default_rng(3)
    shape = (300, 4)
    h, r, d = rng.random(shape) < 0.5, (rng.random(shape) < 0.5).astype(float), rng.random(shape)
    scores = repair.repair_score(h, r, d, edit_cost=0.3)
    literal = scores.argmax(axis=1)
    rows = np.arange(len(literal))
    expected = np.where(h[rows, literal] & (r[rows, literal] >= 0.5), literal, -1)
    chosen = repair.select_repairs(h, r, d, edit_cost=0.3, threshold=0.5)
    np.testing.assert_array_equal(chosen, expected)
    assert (chosen == -1).any() and (chosen >= 0).any()
    assert chosen[0] == (-1 if (one := _select_row(h[0], r[0], d[0])) is None else one)


def _select_row(h, r, d):
    return repair.select_repair(h, r, d, edit_cost=0.3, threshold=0.5)


def test_selection_refuses_other_ranks():
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        repair.select_repairs([True, True], [1.0, 1.0], [0.1, 0.2], edit_cost=0.1, threshold=0.5)
    assert repair.select_repairs(
        np.zeros((2, 0)), np.zeros((2, 0)), np.zeros((2, 0)), edit_cost=0.1, threshold=0.5
    ).tolist() == [-1, -1]


def test_repair_rewards_floor_makes_cheating_no_better_than_failing():
    h, r, d = [True, True, False, False], [1.0, 0.0, 1.0, 1.0], [0.5, 1.0, 0.0, 1.0]
    rewards = lambda kind: repair.repair_rewards(h, r, d, edit_cost=0.1, audit_reject=kind)  # noqa: E731
    np.testing.assert_allclose(rewards("literal"), [0.95, -0.1, 0.0, 0.0], atol=1e-7)
    np.testing.assert_allclose(rewards("floor"), [0.95, -0.1, -0.1, -0.1], atol=1e-7)
    assert rewards("floor").dtype == np.float32
    with pytest.raises(ValueError, match="'zero': must be literal or floor"):
        rewards("zero")
