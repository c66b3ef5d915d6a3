import numpy as np
import pytest

from jaxrl_reason.credit import graft, repair
from jaxrl_reason.types import PairAlignment, Problem
from tests.credit import helpers

# Worked example: tokens split on spaces, four substitutions at 4, 6, 10 and 13.
FAILED = "2 + 3 = 6 ; 6 * 2 = 12 ; ans 12"
REPAIRED = "2 + 3 = 5 ; 5 * 2 = 10 ; ans 10"
PROBLEM = Problem(id="p", prompt="2 3", answer="10")


def multiply_on(words, draw=0):
    """Go on with `2 + 3 = 5 ; 5 * 2 = 10 ; ans 10`; what stands there already is believed."""
    shown = list(words)
    for word in "2 + 3 = 5 ; {4} * 2 = {double} ; ans {10}".split()[len(words) :]:
        double = 2 * int(shown[6]) if len(shown) > 6 else None
        known = {"{4}": shown[4:5], "{10}": shown[10:11], "{double}": [str(double)]}
        shown += known.get(word, [word])
    return shown[len(words) :]


def truncate(pairs, num_edits, kind, policy=None, verify_fn=helpers.ans_verify):
    problems = [PROBLEM] * len(pairs)
    failed = [helpers.completion(f) for f, _ in pairs]
    repaired = [helpers.completion(r) for _, r in pairs]
    alignments = helpers.align_fn([f.tokens for f in failed], [r.tokens for r in repaired])
    return graft.adaptive_num_edits(
        problems,
        failed,
        repaired,
        alignments,
        num_edits=num_edits,
        kind=kind,
        threshold=0.5,
        verify_fn=verify_fn,
        decode=helpers.decode,
        sample_fn=policy,
        encode_prompt=helpers.encode_prompt,
    )


def test_worked_example_alignment():
    pair = helpers.align_texts(FAILED, REPAIRED)
    assert pair.num_edits == 4
    assert np.nonzero(pair.failed_edit_ids >= 0)[0].tolist() == [4, 6, 10, 13]
    assert np.nonzero(pair.repaired_edit_ids >= 0)[0].tolist() == [4, 6, 10, 13]
    np.testing.assert_allclose(repair.pair_distances([pair]), [4 / 14])  # .286


def test_worked_example_splice():
    failed, repaired = helpers.encode(FAILED), helpers.encode(REPAIRED)
    pair = helpers.align_pair(failed, repaired)
    graft_of = lambda k: helpers.decode(  # noqa: E731
        graft.splice(failed, repaired, graft.cut_points(pair, k))
    )
    assert graft_of(0) == FAILED
    assert graft_of(1) == "2 + 3 = 5 ; 6 * 2 = 12 ; ans 12"
    assert graft_of(2) == "2 + 3 = 5 ; 5 * 2 = 12 ; ans 12"
    assert graft_of(3) == "2 + 3 = 5 ; 5 * 2 = 10 ; ans 12"
    assert graft_of(4) == graft_of(9) == REPAIRED


@pytest.mark.parametrize("num_edits, expected", [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4), (9, 4)])
def test_worked_example_splice_needs_all_edits(num_edits, expected):
    # K = 1: 1 and 2 edits fail; K = 2: 2 fail, 2K = 4 is the repair itself; K = 3: 3 fail, 2K = 6 >= 4.
    assert truncate([(FAILED, REPAIRED)], num_edits, "splice") == ([expected], 0)


def verify_second_word(problems, texts):
    """A stand-in for a task whose answer does not stand at the end."""
    return helpers.ans_verify(problems, [f"ans {text.split()[1]}" for text in texts])


@pytest.mark.parametrize("failed, expected", [("7 12 4 5 6", 1), ("3 12 4 5 6", 2), ("3 12", 2)])
def test_splice_can_stop_at_k_and_at_2k(failed, expected):
    # Repair "7 10 8 9 9", K = 1. Failed "7 12 ...": edit 0 is 12 -> 10, right at once, though three more follow.
    # Failed "3 12 ...": edit 0 is 3 -> 7, wrong; with edit 1, 12 -> 10, right.
    # Failed "3 12", repaired "7 10": two edits, wrong after one; 2K = 2 is the repair itself.
    repaired = "7 10" if failed == "3 12" else "7 10 8 9 9"
    assert truncate([(failed, repaired)], 1, "splice", verify_fn=verify_second_word) == (
        [expected],
        0,
    )


def test_continue_isolates_the_root_error():
    policy = helpers.Policy(multiply_on)
    result = truncate([(FAILED, REPAIRED)], 1, "continue", policy)
    # "2 + 3 = 5" is 5 tokens; "; 5 * 2 = 10 ; ans 10" and EOS are 10 more.
    assert result == ([1], 10)
    assert policy.calls == [
        {
            "prompts": ["solve 2 3 :"],
            "stage": "graft/1",
            "num_samples": 1,
            "temperature": 0.0,
            "prefixes": ["2 + 3 = 5"],
        }
    ]


def test_continue_second_round_holds_failures_only_and_cost_adds_up():
    # Repair of two independent slips: the first edit leaves the second step to the policy, which believes 6.
    policy = helpers.Policy(
        lambda words, draw: multiply_on(words) if len(words) > 6 else ["ans", "0"]
    )
    second = ("2 + 3 = 6 ; 6 * 2 = 12 ; ans 12", "2 + 3 = 5 ; 5 * 2 = 10 ; ans 10")
    few = ("2 + 3 = 5 ; 5 * 2 = 10 ; ans 12", "2 + 3 = 5 ; 5 * 2 = 10 ; ans 10")
    result = truncate([few, second], 1, "continue", policy)
    # `few` has one edit and is never grafted. `second`: "ans 0 EOS" (3 tokens) fails at 1; at 2, behind
    # "2 + 3 = 5 ; 5", "* 2 = 10 ; ans 10 EOS" (8 tokens) is right.
    assert result == ([1, 2], 3 + 8)
    assert [call["prefixes"] for call in policy.calls] == [["2 + 3 = 5"], ["2 + 3 = 5 ; 5"]]
    assert [call["stage"] for call in policy.calls] == ["graft/1", "graft/2"]


def test_a_graft_out_of_budget_is_wrong():
    # The first edit would do, but the policy never ends: 9 tokens at K = 1, 7 at 2K (no EOS).
    policy = helpers.Policy(multiply_on, eos=False)
    assert truncate([(FAILED, REPAIRED)], 1, "continue", policy) == ([4], 9 + 7)
    # A splice ends as the failed text does. The same pair stops at K = 1 where that has ended (see above).
    failed, repaired = helpers.completion("7 12 4 5 6", eos=False), helpers.completion("7 10 8 9 9")
    result = graft.adaptive_num_edits(
        [PROBLEM],
        [failed],
        [repaired],
        helpers.align_fn([failed.tokens], [repaired.tokens]),
        num_edits=1,
        kind="splice",
        threshold=0.5,
        verify_fn=verify_second_word,
        decode=helpers.decode,
    )
    assert result == ([5], 0)  # 12, 4, 5, 6 and the missing EOS


def test_continue_falls_back_to_all_edits():
    policy = helpers.Policy(lambda words, draw: ["ans", "0"])
    assert truncate([(FAILED, REPAIRED)], 1, "continue", policy) == ([4], 6)


def test_continue_with_nothing_left_to_write():
    # The failed text ran out of budget. Edit 0 substitutes 12 by 10, edit 1 puts EOS for 3, edit 2 deletes 4: behind
    # edit 1 the repair is whole.
    failed = helpers.completion("ans 12 3 4", eos=False)
    repaired = helpers.completion("ans 10")
    alignment = PairAlignment(np.array([-1, 0, 1, 2]), np.array([-1, 0, 1]), 3)
    assert graft.cut_points(alignment, 2) == (3, 3)

    def never(*args, **kwargs):
        raise AssertionError("nothing to continue")

    result = graft.adaptive_num_edits(
        [PROBLEM],
        [failed],
        [repaired],
        [alignment],
        num_edits=2,
        kind="continue",
        threshold=0.5,
        verify_fn=helpers.ans_verify,
        decode=helpers.decode,
        sample_fn=never,
        encode_prompt=helpers.encode_prompt,
    )
    assert result == ([2], 0)


def test_no_truncation_generates_nothing():
    def never(*args, **kwargs):
        raise AssertionError("K = 0 keeps all edits")

    assert truncate([(FAILED, REPAIRED)], 0, "continue", never) == ([4], 0)
    assert truncate([], 3, "continue", never) == ([], 0)


def test_splice_is_the_failed_text_with_exactly_the_first_edits():
    rng = np.random.default_rng(5)
    for _ in range(100):
        a, b = (rng.integers(0, 4, rng.integers(0, 10)).tolist() for _ in range(2))
        pair = helpers.align_pair(a, b)
        for k in range(pair.num_edits + 1):
            text = graft.splice(a, b, graft.cut_points(pair, k))
            rest = helpers.align_pair(text, b)
            assert helpers.align_pair(a, text).num_edits == k
            assert rest.num_edits == pair.num_edits - k


def test_errors():
    with pytest.raises(ValueError, match="'cut': must be splice or continue"):
        truncate([], 1, "cut")
    with pytest.raises(ValueError, match="needs sample_fn and encode_prompt"):
        truncate([], 1, "continue")
    with pytest.raises(ValueError, match="num_edits = -1"):
        truncate([], -1, "splice")
    with pytest.raises(ValueError, match="num_edits = -1"):
        graft.cut_points(helpers.align_texts("a", "b"), -1)
    with pytest.raises(ValueError, match="1 problems, 0 failed"):
        graft.adaptive_num_edits(
            [PROBLEM],
            [],
            [],
            [],
            num_edits=1,
            kind="splice",
            threshold=0.5,
            verify_fn=helpers.ans_verify,
            decode=str,
        )
