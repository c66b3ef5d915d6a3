import numpy as np
import pytest

from jaxrl_reason import config, config_rules
from jaxrl_reason.credit import audit, judge
from jaxrl_reason.tasks import arithmetic
from jaxrl_reason.types import AuditResult, Problem
from tests.credit import helpers

TASK = arithmetic.Arithmetic(length=4, modulus=10, operators="+")
PROBLEM = Problem(id="p", prompt="3 8 5 2", answer="8")
FAILED = "1 5 2 ; 1 9 ; 0 ; = 0"  # step 1 is wrong: 5 + 2 = 7
HONEST = "1 5 2 ; 1 7 ; 8 ; = 8"
SHAM = "1 5 2 ; 1 6 ; 8 ; = 8"  # step 1 is still wrong, step 2 jumps to the answer
ANCHOR = "3 3 2 ; 6 2 ; 8 ; = 8"


def no_call(*args, **kwargs):
    raise AssertionError("a cheap test should have rejected this before")


def run(audit_fn, repaired, *, failed=FAILED, anchor=ANCHOR, problem=PROBLEM):
    cases = [helpers.completion(text) for text in (failed, anchor, repaired)]
    return audit_fn([problem], *([case] for case in cases))[0]


def every_audit(tools):
    """All four, each with a deep test that fails the test if it is reached."""
    return {
        "none": audit.none(tools),
        "replay": audit.replay(tools, no_call),
        "continuation": audit.continuation(
            tools, no_call, no_call, helpers.encode_prompt, k=2, threshold=0.5
        ),
        # Nothing listens on port 9 of this host: a request would end as "judge error:".
        "judge": audit.judge(
            tools,
            judge.Endpoint("http://127.0.0.1:9", "m"),
            rng=np.random.default_rng(0),
            tally=judge.Tally(),
        ),
    }


@pytest.mark.parametrize("name", ["none", "replay", "continuation", "judge"])
@pytest.mark.parametrize(
    "repaired, reason",
    [
        (FAILED, "no edit"),
        (ANCHOR, "anchor copy"),
        ("1 5 2 ; 1 9 ; 0 ; = 8", "answer-only edit"),
        ("1 5 2 ; 1 7 ; 8 ; the anchor says 8 ; = 8", "mentions 'anchor'"),
    ],
)
def test_cheap_tests_run_first_in_every_audit(name, repaired, reason):
    result = run(every_audit(helpers.tools())[name], repaired)
    assert result == AuditResult(False, reason)


@pytest.mark.parametrize("name", ["none", "replay", "continuation", "judge"])
def test_no_cases_are_no_work(name):
    assert every_audit(helpers.tools(align_fn=no_call))[name]([], [], [], []) == []


def test_none_accepts_what_the_cheap_tests_let_through():
    assert run(audit.none(helpers.tools()), SHAM).accepted
    assert run(audit.none(helpers.tools()), HONEST) == AuditResult(True, "passed")


def test_copy_limit_by_hand():
    # 12 tokens with EOS. Repair and anchor differ in 1 of them: similarity 11/12 = 0.917. Failed and anchor differ in
    # 1 -> 6, 5 -> 6, 2 -> 3, 1 -> 2, 7 -> 9: 1 - 5/12 = 0.583.
    anchor, failed = "1 5 2 ; 1 7 ; 8 ; = 8", "6 6 3 ; 2 9 ; 8 ; = 8"
    repaired = "1 5 2 ; 1 7 ; 9 ; = 8"
    judged = lambda limit, f=failed: run(  # noqa: E731
        audit.none(helpers.tools(anchor_copy_similarity=limit)), repaired, failed=f, anchor=anchor
    )
    assert judged(0.9).reason == "anchor copy"
    assert judged(11 / 12).reason == "anchor copy"
    assert judged(0.93).accepted
    # The failed completion took the anchor's path (1 - 3/12 = 0.75): its smallest repair comes close to the anchor.
    near = "1 6 2 ; 2 9 ; 8 ; = 8"
    assert judged(0.9, near).accepted


def test_the_anchor_is_an_honest_repair_of_a_slip_on_its_own_path():
    slip = "3 3 2 ; 6 2 ; 9 ; = 9"
    assert run(audit.none(helpers.tools()), ANCHOR, failed=slip).accepted
    assert run(audit.replay(helpers.tools(), TASK.first_error), ANCHOR, failed=slip).accepted
    strict = helpers.tools(anchor_path_similarity=1.0)
    assert run(audit.none(strict), ANCHOR, failed=slip).reason == "anchor copy"


def test_exact_copies_are_rejected_up_to_a_limit_of_one_and_by_text():
    strict = audit.none(helpers.tools(anchor_copy_similarity=1.0))
    assert run(strict, ANCHOR).reason == "anchor copy"
    # Same text, other tokens: an anchor without EOS, such as a data set's solution.
    failed, repaired = (helpers.completion(text) for text in (FAILED, ANCHOR))
    anchor = helpers.completion(ANCHOR, eos=False)
    assert strict([PROBLEM], [failed], [anchor], [repaired])[0].reason == "anchor copy"


@pytest.mark.parametrize(
    "failed, repaired, only",
    [
        ("1 5 2 ; 1 7 ; 8 ; = 0", HONEST, True),
        ("1 5 2 ; 1 7 ; 8 ;", HONEST, True),  # the missing answer is put in
        ("1 5 2 ; 1 7 ; 8 ; = 0 0 0", HONEST, True),  # deletions behind the marker
        ("1 5 2 ; 1 7 ; 0 ; = 0", HONEST, False),
        ("1 5 2 ; 1 1 7 ; 8 ; = 0", HONEST, False),  # a deletion before the marker
        ("1 5 2 ; 8 ; = 0", HONEST, False),  # an insertion before it
        # The answer span starts at the last marker on either side.
        ("= 0 ; 1 7 ; 8 ; = 8", "= 1 ; 1 7 ; 8 ; = 8", False),
    ],
)
def test_answer_only(failed, repaired, only):
    result = run(audit.none(helpers.tools()), repaired, failed=failed)
    assert result.accepted != only
    assert (result.reason == "answer-only edit") == only


@pytest.mark.parametrize(
    "text, problem, failed, accepted",
    [
        ("As the Reference shows, 8", "", "", False),
        ("my preference is 8", "", "", True),  # "reference" must start a word
        ("unlike my previous\n attempt, 8", "", "", False),
        ("by the given  solution 8", "", "", False),
        ("the anchor weighs 8", "an Anchor and a boat", "", True),
        ("the anchor weighs 8", "", "the anchor weighs 0", True),
        ("the anchor weighs 8, see reference", "an anchor", "", False),
    ],
)
def test_mentions(text, problem, failed, accepted):
    pieces = lambda tokens: ["x"] * len(tokens)  # noqa: E731
    cases = [
        [dict_case]
        for dict_case in (
            helpers.retold(helpers.completion("1 2 3"), failed),
            helpers.retold(helpers.completion("4 5 6"), "anchor text"),
            helpers.retold(helpers.completion("1 2 7"), text),
        )
    ]
    result = audit.none(helpers.tools(pieces_fn=pieces))([Problem("p", problem, "8")], *cases)[0]
    assert result.accepted == accepted, result.reason


def test_replay_needs_every_step_right():
    replay = audit.replay(helpers.tools(), TASK.first_error)
    assert run(replay, HONEST).accepted
    assert run(replay, SHAM) == AuditResult(False, "step 1 is wrong")


def continuation(policy, *, k=2, cut="first_edit", **changes):
    return audit.continuation(
        helpers.tools(**changes),
        policy,
        TASK.verify,
        helpers.encode_prompt,
        k=k,
        threshold=0.5,
        cut=cut,
    )


def test_continuation_asks_the_policy_behind_the_first_edited_step():
    policy = helpers.Policy(helpers.reduce_list)
    assert run(continuation(policy), HONEST).accepted
    assert run(continuation(policy), SHAM) == AuditResult(False, "continuation: 0 of 2 right")
    asked = {"prompts": ["solve 3 8 5 2 :"], "stage": "audit", "num_samples": 2, "temperature": 1.0}
    assert policy.calls == [
        asked | {"prefixes": ["1 5 2 ; 1 7 ;"]},
        asked | {"prefixes": ["1 5 2 ; 1 6 ;"]},
    ]


def test_the_last_step_cut_sees_a_chain_that_goes_wrong_after_its_first_edit():
    five = Problem(id="p", prompt="3 8 5 2 4", answer="2")
    failed, late = "1 5 2 4 ; 1 9 4 ; 0 4 ; 4 ; = 4", "1 5 2 4 ; 1 7 4 ; 9 4 ; 2 ; = 2"
    policy = helpers.Policy(helpers.reduce_list)
    assert run(continuation(policy), late, failed=failed, problem=five).accepted
    last = continuation(policy, cut="last_step")
    result = run(last, late, failed=failed, problem=five)
    assert result == AuditResult(False, "continuation: 0 of 2 right")
    assert policy.calls[-1]["prefixes"] == ["1 5 2 4 ; 1 7 4 ; 9 4 ;"]
    assert run(last, "1 5 2 4 ; 1 7 4 ; 8 4 ; 2 ; = 2", failed=failed, problem=five).accepted


def test_the_last_step_cut_never_lies_before_the_first_edited_step():
    policy = helpers.Policy(helpers.reduce_list)
    failed = "1 5 2 ; 1 7 ; 9 ; = 9"
    assert run(continuation(policy, cut="last_step"), HONEST, failed=failed).accepted
    assert policy.calls[-1]["prefixes"] == ["1 5 2 ; 1 7 ; 8 ;"]


@pytest.mark.parametrize(
    "k, right, accepted", [(1, 0, False), (1, 1, True), (2, 1, True), (3, 1, False), (3, 2, True)]
)
def test_continuation_wants_half(k, right, accepted):
    policy = helpers.Policy(lambda words, draw: ["8", ";", "=", "8" if draw < right else "3"])
    result = run(continuation(policy, k=k), HONEST)
    assert result.accepted == accepted
    assert accepted or result.reason == f"continuation: {right} of {k} right"


def test_continuation_out_of_budget_is_wrong():
    endless = helpers.Policy(helpers.reduce_list, eos=False)
    assert run(continuation(endless), HONEST).reason == "continuation: 0 of 2 right"


def test_continuation_of_a_deletion_takes_the_step_at_its_place():
    policy = helpers.Policy(helpers.reduce_list)
    # "1 9 ;" is deleted, and the repair goes on with "1 7 ;": that is the step at the place.
    failed = "1 5 2 ; 1 9 ; 1 7 ; 8 ; = 8"
    assert run(continuation(policy), HONEST, failed=failed).accepted
    assert policy.calls[-1]["prefixes"] == ["1 5 2 ; 1 7 ;"]


def test_first_edit_counts_even_where_a_later_one_changes_tokens():
    policy = helpers.Policy(helpers.reduce_list)
    # Edit 0 deletes in step 0, edit 1 substitutes in step 1.
    failed = "1 5 5 2 ; 1 9 ; 8 ; = 8"
    run(continuation(policy), HONEST, failed=failed)
    assert policy.calls[-1]["prefixes"] == ["1 5 2 ;"]


@pytest.mark.parametrize(
    "failed, repaired, accepted",
    [
        # The edited step is the last one and holds the answer: nothing to continue, the outcome decides.
        ("1 5 2 ; 1 7 ; 8 = 0", "1 5 2 ; 1 7 ; 9 = 8", True),
        ("1 5 2 ; 1 7 ; 8 = 0", "1 5 2 ; 1 7 ; 9 = 3", False),
        # The answer stands inside the prefix: a continuation would only copy it.
        ("1 5 2 ; 1 9 = 0 ; 5", "1 5 2 ; 1 7 = 8 ; 5", False),
        # Everything behind is deleted, without a token to continue from.
        ("1 5 2 ; 1 7 ; 8 ; = 8 ; 5", "1 5 2", False),
    ],
)
def test_nothing_to_continue(failed, repaired, accepted):
    result = run(continuation(no_call), repaired, failed=failed)
    assert result.accepted == accepted
    assert accepted or result.reason == "continuation: 0 of 1 right"


def test_continuation_is_one_call_for_all_cases_and_keeps_their_order():
    policy = helpers.Policy(helpers.reduce_list)
    repairs = [SHAM, "1 5 2 ; 1 7 ; 9 = 8", HONEST, ANCHOR]
    failed = [FAILED, "1 5 2 ; 1 7 ; 8 = 0", FAILED, FAILED]
    results = continuation(policy)(
        [PROBLEM] * 4,
        [helpers.completion(text) for text in failed],
        [helpers.completion(ANCHOR)] * 4,
        [helpers.completion(text) for text in repairs],
    )
    assert [result.accepted for result in results] == [False, True, True, False]
    assert len(policy.calls) == 1 and len(policy.calls[0]["prefixes"]) == 2


def test_continuation_agrees_with_replay_on_single_slips():
    """Repairs of real corruptions: honest ones pass both audits, ones with a step left wrong fail both."""
    rng = np.random.default_rng(0)
    task = arithmetic.Arithmetic(length=6, modulus=10, operators="+")
    problems = task.batch(0, 0, 40)
    failed = [task.corrupt(p, task.demonstrate(p, rng), rng) for p in problems]
    anchors = [helpers.completion(task.demonstrate(p, rng)) for p in problems]
    honest = [task.repair(p, f, rng) for p, f in zip(problems, failed, strict=True)]
    policy = helpers.Policy(helpers.reduce_list)
    tools = helpers.tools(anchor_copy_similarity=1.0)
    audits = {
        "replay": audit.replay(tools, task.first_error),
        "continuation": audit.continuation(
            tools, policy, task.verify, helpers.encode_prompt, k=2, threshold=0.5
        ),
    }
    fs, hs = ([helpers.completion(text) for text in side] for side in (failed, honest))
    results = {name: fn(problems, fs, anchors, hs) for name, fn in audits.items()}
    assert results["replay"] == results["continuation"]
    assert np.mean([r.accepted for r in results["replay"]]) > 0.8
    assert {r.reason for r in results["replay"]} <= {"passed", "anchor copy"}
    # Sham: the honest repair with another first number in its first step, the answer still right. A policy that
    # believes this step ends elsewhere. (The number must not be that of the failed text either: an edit that only
    # stands later, in a step copied from an honest repair, is what the continuation audit cannot see through.)
    shams = []
    for text, wrong in zip(honest, failed, strict=True):
        words = text.split()
        taken = {int(words[0]), int(wrong.split()[0])}
        words[0] = str(next(n for n in range(10) if n not in taken))
        shams.append(helpers.completion(" ".join(words)))
    for name in audits:
        judged = audits[name](problems, fs, anchors, shams)
        assert not any(r.accepted for r in judged), name


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="1 problems, 0 failed, 0 anchors, 0 repaired"):
        audit.none(helpers.tools())([PROBLEM], [], [], [])
    with pytest.raises(ValueError, match="k = 0"):
        continuation(no_call, k=0)
    with pytest.raises(ValueError, match="cut = 'middle': must be one of first_edit, last_step"):
        continuation(no_call, cut="middle")


def test_per_case_lifts_a_function_of_one_case():
    seen = []

    def fn(problem, failed, anchor, repaired):
        seen.append((problem.id, failed.text, anchor.text, repaired.text))
        return np.bool_(repaired.text == HONEST), "told"

    lifted = audit.per_case(fn)
    completions = [helpers.completion(text) for text in (HONEST, SHAM)]
    results = lifted([PROBLEM] * 2, completions, completions, completions)
    assert results == [AuditResult(True, "told"), AuditResult(False, "told")]
    assert type(results[0].accepted) is bool
    assert seen[1] == ("p", SHAM, SHAM, SHAM)


def make(name, first_error=TASK.first_error, policy=no_call):
    c = config.base()
    with c.unlocked():
        c.iop.audit = name
        c.iop.judge_url, c.iop.judge_model = "http://127.0.0.1:9/v1", "m"
    tools = helpers.tools()
    return audit.make_audit(
        c.iop,
        align_fn=tools.align_fn,
        pieces_fn=tools.pieces_fn,
        step_ids_fn=tools.step_ids_fn,
        answer_marker="=",
        sample_fn=policy,
        verify_fn=TASK.verify,
        encode_prompt=helpers.encode_prompt,
        first_error=first_error,
    )


def test_make_audit_builds_the_one_that_the_config_names():
    assert run(make("none"), SHAM).accepted
    assert run(make("replay"), SHAM).reason == "step 1 is wrong"
    policy = helpers.Policy(helpers.reduce_list)
    assert run(make("continuation", policy=policy), SHAM).reason == "continuation: 0 of 2 right"
    assert run(make("judge"), SHAM).reason.startswith("judge error: unreachable")
    # Every choice of the config can be built.
    for name in config_rules.CHOICES["iop.audit"]:
        assert run(make(name), ANCHOR).reason == "anchor copy"


def test_make_audit_errors():
    with pytest.raises(ValueError, match="no step oracle"):
        make("replay", first_error=None)
    with pytest.raises(
        ValueError, match="'strict': must be one of none, replay, continuation, judge"
    ):
        make("strict")
