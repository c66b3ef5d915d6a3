"""IOP's recipe on hand-made groups: which rows come out, with what gate, advantage, prompt and weight."""

from __future__ import annotations

import collections
import dataclasses
import json

import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason.credit import judge
from jaxrl_reason.methods import iop
from jaxrl_reason.types import POLICY_STREAM, REPAIR_STREAM
from tests.credit.judge_server import say, server
from tests.methods import helpers

# 3 8 5 2 modulo 10; right: 3+8 = 1, then 5+2 = 7, then 1+7 = 8.
RIGHT = "1 5 2 ; 1 7 ; 8 ; = 8"
OTHER_RIGHT = "3 3 2 ; 3 5 ; 8 ; = 8"
FAILED = "1 5 2 ; 1 9 ; 0 ; = 0"  # wrong in step 1: 5+2 is not 9
SHAM = "1 5 2 ; 1 9 ; 8 ; = 8"  # right answer, but 1+9 is not 8: a copy of the anchor's answer
# Edits of FAILED -> RIGHT by token (words and EOS): 9 -> 7 at 5, 0 -> 8 at 7, 0 -> 8 at 10.


def settings(**changes):
    config = config_lib.recipe("iop")
    values = {"iop.audit": "replay", "iop.num_repairs": 2, "iop.num_edits": 0} | {
        name.replace("__", "."): value for name, value in changes.items()
    }
    return config_lib.override(config, [f"{k}={v}" for k, v in values.items()])


def build(groups, script, **changes):
    method = iop.Iop(settings(**changes))
    return method.build(groups, helpers.stages(script), np.random.default_rng(0))


def rows_of(built, stream):
    return [row for row in built.rows if row.stream == stream]


def test_pair_has_bilateral_gates_and_opposite_advantages():
    script = helpers.Script(repair=[[RIGHT, SHAM]])
    built = build([helpers.group(FAILED, OTHER_RIGHT)], script)
    failed, repaired = rows_of(built, POLICY_STREAM)
    assert helpers.TOKENIZER.decode(failed.completion[:-1]) == FAILED
    assert np.flatnonzero(failed.gate).tolist() == [5, 7, 10]
    assert np.flatnonzero(repaired.gate).tolist() == [5, 7, 10]
    assert set(failed.advantages) == {-1.0} and set(repaired.advantages) == {1.0}
    # 12 tokens, 3 gated: both clip widths grow by sqrt(12 / 3) = 2.
    assert failed.clip_scale == pytest.approx(2.0)


def test_old_logprobs_of_repairs_are_never_those_of_the_repair_prompt():
    script = helpers.Script(repair=[[RIGHT, SHAM]])
    group = helpers.group(FAILED, OTHER_RIGHT)
    built = build([group], script, **{"loss.old_logprobs": "behavior"})
    repaired = rows_of(built, POLICY_STREAM)[1]
    assert repaired.prompt == group.prompt
    # The update's own, under the row's prompt; the script's behaviour log-probs are -0.5.
    assert repaired.old_logprobs is None
    np.testing.assert_array_equal(rows_of(built, POLICY_STREAM)[0].old_logprobs, np.float32(-0.5))
    for row in rows_of(built, REPAIR_STREAM):
        assert row.prompt != group.prompt
        np.testing.assert_array_equal(row.old_logprobs, np.float32(-0.5))


def test_correct_samples_never_enter_the_gradient():
    script = helpers.Script(repair=[[RIGHT, SHAM]])
    built = build([helpers.group(FAILED, OTHER_RIGHT, OTHER_RIGHT)], script)
    sampled_right = helpers.completion(OTHER_RIGHT).tokens
    assert all(row.completion != sampled_right for row in built.rows)


def test_dishonest_repairs_are_rejected_by_replay_and_taken_without_audit():
    only_sham = helpers.Script(repair=[[SHAM, SHAM]])
    built = build([helpers.group(FAILED, OTHER_RIGHT)], only_sham)
    assert built.rows == []
    assert built.metrics["process/audit_reject_frac"] == 1.0
    assert built.metrics["process/repair_success"] == 0.0
    built = build([helpers.group(FAILED, OTHER_RIGHT)], only_sham, iop__audit="none")
    assert len(rows_of(built, POLICY_STREAM)) == 2
    assert built.metrics["process/honest_frac"] == 0.0
    assert built.records[0]["repaired_first_error"] == 1


@pytest.mark.parametrize(
    ("kind", "high", "low"), [("zscore", 1.0, -1.0), ("centred", 0.5375, -0.5375)]
)
def test_repair_mode_rows_are_group_normalised_and_weighted(kind, high, low):
    # Scores: RIGHT is honest, 3 of 12 tokens differ: 1 - 0.1 * 0.25 = 0.975. SHAM is rejected: floor -0.1.
    # Mean 0.4375, population std 0.5375: +1 and -1.
    script = helpers.Script(repair=[[RIGHT, SHAM]])
    built = build(
        [helpers.group(FAILED, OTHER_RIGHT)],
        script,
        iop__repair_weight=0.25,
        iop__repair_advantage=kind,
    )
    rows = rows_of(built, REPAIR_STREAM)
    assert [row.weight for row in rows] == [0.25, 0.25]
    np.testing.assert_allclose([row.advantages[0] for row in rows], [high, low], atol=1e-6)
    assert all(row.gate.all() for row in rows)
    assert rows_of(build([helpers.group(FAILED, RIGHT)], script, iop__repair_weight=0.0), 1) == []


def test_sft_objective_trains_the_accepted_repair_alone():
    script = helpers.Script(repair=[[SHAM, RIGHT]])
    built = build([helpers.group(FAILED, OTHER_RIGHT)], script, iop__repair_objective="sft")
    (row,) = rows_of(built, REPAIR_STREAM)
    assert row.completion == helpers.completion(RIGHT).tokens
    assert row.advantages[0] == 1.0


@pytest.mark.parametrize(
    ("kind", "failed", "repaired"),
    # One of four is right: p = 1/4, sqrt(p (1 - p)) = 0.4330.
    [
        ("pair", -1.0, 1.0),
        ("original", -0.25 / 0.4330127, 0.75 / 0.4330127),
        ("centred", -0.25, 0.75),
    ],
)
def test_advantage_groups(kind, failed, repaired):
    script = helpers.Script(repair=[[RIGHT, RIGHT]])
    built = build([helpers.group(FAILED, FAILED, FAILED, OTHER_RIGHT)], script, iop__adv_group=kind)
    rows = rows_of(built, POLICY_STREAM)
    np.testing.assert_allclose(
        [rows[0].advantages[0], rows[1].advantages[0]], [failed, repaired], rtol=1e-6
    )


def test_groups_without_anchor_are_dropped_and_counted():
    script = helpers.Script(repair=[[RIGHT, RIGHT]])
    built = build([helpers.group(FAILED, SHAM.replace("= 8", "= 7"))], script)
    assert built.rows == [] and script.sampled == []
    assert built.metrics["process/no_anchor_frac"] == 1.0
    assert "process/repair_success" not in built.metrics


def test_reference_solution_can_be_the_anchor():
    problem = dataclasses.replace(helpers.PROBLEM, reference=OTHER_RIGHT)
    group = helpers.group(FAILED, FAILED, problem=problem)
    script = helpers.Script(repair=[[RIGHT, RIGHT]])
    assert not iop.Iop(settings()).gives_signal(group)
    built = build([group], script, iop__reference_anchor=True)
    assert len(rows_of(built, POLICY_STREAM)) == 4


def test_unrepaired_failures_can_be_plain_negatives():
    script = helpers.Script(repair=[[SHAM, SHAM]])
    built = build([helpers.group(FAILED, OTHER_RIGHT)], script, iop__unrepaired="outcome")
    (row,) = rows_of(built, POLICY_STREAM)
    assert row.gate.all() and set(row.advantages) == {-1.0}


def test_full_mask_ablation_gates_every_token():
    script = helpers.Script(repair=[[RIGHT, SHAM]])
    rows = rows_of(
        build([helpers.group(FAILED, OTHER_RIGHT)], script, iop__gate="all"), POLICY_STREAM
    )
    assert all(row.gate.all() and row.clip_scale == 1.0 for row in rows)


@pytest.mark.parametrize(("graft", "gated"), [("splice", [5, 7, 10]), ("continue", [5])])
def test_truncation_keeps_the_edits_that_suffice(graft, gated):
    # K = 1: splicing the first edit alone leaves "= 0" behind; so does the second round (2K = 2), so all three stay.
    # Continuing from the first edit, the policy of the script reaches the answer.
    script = helpers.Script(repair=[[RIGHT, RIGHT]], graft=[[RIGHT]])
    built = build([helpers.group(FAILED, OTHER_RIGHT)], script, iop__num_edits=1, iop__graft=graft)
    assert np.flatnonzero(rows_of(built, POLICY_STREAM)[0].gate).tolist() == gated


def test_insertions_alone_leave_the_failed_side_out():
    failed = "1 5 2 ; 1 7 ; = 7"
    script = helpers.Script(repair=[[RIGHT, RIGHT]])
    built = build([helpers.group(failed, OTHER_RIGHT)], script)
    # Edits: insert "8 ;" and substitute 7 -> 8: the failed side has one gated token, the repaired side three.
    failed_row, repaired_row = rows_of(built, POLICY_STREAM)
    assert failed_row.gate.sum() == 1 and repaired_row.gate.sum() == 3


def test_gate_hit_rate_compares_first_edit_with_the_oracle():
    script = helpers.Script(repair=[[RIGHT, RIGHT]])
    built = build([helpers.group(FAILED, OTHER_RIGHT)], script)
    assert built.metrics["process/gate_hit_rate"] == 1.0
    record = built.records[0]
    assert record["oracle_first_error"] == record["gate_first_step"] == 1
    assert record["repaired_first_error"] == -1
    assert record["failed"]["gate"] == [0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0]


def test_repair_rows_are_capped_by_whole_groups():
    script = helpers.Script(repair=[[RIGHT, SHAM]])
    groups = [helpers.group(FAILED, FAILED, FAILED, OTHER_RIGHT)]
    built = build(groups, script, iop__repair_rows=5)
    assert len(rows_of(built, REPAIR_STREAM)) == 4


WRONG = "1 5 2 ; 1 7 ; 9 ; = 9"


def judging(**by_repair):
    """A judge that answers with this status, or verdict, by the name of the repair."""
    texts = {"RIGHT": RIGHT, "SHAM": SHAM}

    def answer(handler, body):
        repaired = json.loads(body["messages"][1]["content"])["repaired"]
        (name,) = (name for name, text in texts.items() if text == repaired)
        if type(by_repair[name]) is int:
            return handler.send_error(by_repair[name])
        return say(json.dumps({"accept": by_repair[name]}))(handler, body)

    return answer


def build_judged(texts, url, **changes):
    script = helpers.Script(repair=[texts])
    own = {"iop.audit": "judge", "iop.judge_url": url, "iop.judge_model": "m"}
    own |= {"iop.judge_retries": 0, "iop.num_repairs": len(texts)}
    return build([helpers.group(FAILED, OTHER_RIGHT)], script, **(own | changes))


@pytest.mark.parametrize("reject", ["floor", "literal"])
@pytest.mark.parametrize("unrepaired", ["drop", "outcome"])
def test_a_failure_of_the_judge_is_no_reward(reject, unrepaired, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    choices = {"iop.audit_reject": reject, "iop.unrepaired": unrepaired}
    with server(judging(RIGHT=503)) as (url, _):
        built = build_judged([RIGHT, WRONG], url, **choices)
    assert built.rows == [], "neither the repair nor, for want of one, the failure"
    assert built.metrics["audit/judge_error_frac"] == 1.0
    assert built.metrics["process/repair_correct_frac"] == 0.5
    assert "process/audit_reject_frac" not in built.metrics
    assert [r["status"] for r in built.records] == ["undecided", "right"]

    # Beside verdicts: the others of the failure are compared among themselves.
    with server(judging(RIGHT=500, SHAM=False)) as (url, _):
        built = build_judged([RIGHT, WRONG, SHAM], url, **choices)
    rows = rows_of(built, REPAIR_STREAM)
    tokens = [row.completion for row in rows]
    assert tokens == [helpers.completion(text).tokens for text in (WRONG, SHAM)]
    score = -0.1 * 3 / 12  # of WRONG, 3 of whose 12 tokens differ
    spread = score - (-0.1 if reject == "floor" else 0.0)
    np.testing.assert_allclose([row.advantages[0] for row in rows], [spread / 2, -spread / 2])
    assert rows_of(built, POLICY_STREAM) == []
    assert built.metrics["audit/judge_error_frac"] == 0.5
    assert built.metrics["process/audit_reject_frac"] == 1.0

    # The same repairs, all judged.
    with server(judging(RIGHT=True, SHAM=False)) as (url, _):
        built = build_judged([RIGHT, WRONG, SHAM], url, **choices)
    assert len(rows_of(built, REPAIR_STREAM)) == 3 and len(rows_of(built, POLICY_STREAM)) == 2
    assert built.metrics["audit/judge_error_frac"] == 0.0


def test_a_judge_that_is_down_ends_the_run(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with server(judging(RIGHT=503)) as (url, _):
        own = {"iop.audit": "judge", "iop.judge_url": url, "iop.judge_model": "m"}
        own |= {"iop.judge_retries": 0, "iop.judge_patience": 2}
        method = iop.Iop(settings(**own))
        update = lambda: method.build(  # noqa: E731
            [helpers.group(FAILED, OTHER_RIGHT)],
            helpers.stages(helpers.Script(repair=[[RIGHT, RIGHT]])),
            np.random.default_rng(0),
        )
        assert update().rows == []
        with pytest.raises(judge.JudgeDown, match="no verdict in 2 updates in a row"):
            update()
    with server(judging(RIGHT=401)) as (url, _):
        with pytest.raises(judge.JudgeRefused, match="HTTP 401"):
            build_judged([RIGHT, WRONG], url)


# --- What is shown ---------------------------------------------------------------------------------

FAR = "1 5 2 ; 1 9 ; 0 ; = 1"  # as far from the answer as FAILED


def shown(groups, script, **changes):
    return build(groups, script, **changes).records


def test_records_hold_cases_of_every_outcome():
    # Repairs of the three failures with an anchor, in order: an honest one beside a sham; only shams; none right.
    script = helpers.Script(repair=[[RIGHT, SHAM], [SHAM, SHAM], [FAR, FAILED]])
    groups = [helpers.group(FAILED, FAILED, FAILED, OTHER_RIGHT), helpers.group(FAR, FAILED)]
    records = shown(groups, script)
    found = sorted((r["status"], r["kind"]) for r in records)
    assert found == [
        ("accepted", "pair"),
        ("no_anchor", "completion"),
        ("no_anchor", "completion"),
        ("rejected", "pair"),
        ("rejected", "pair"),
        ("rejected", "pair"),
        ("right", "completion"),
        ("unrepaired", "pair"),
    ]
    by_status = {r["status"]: r for r in reversed(records)}
    accepted, rejected = by_status["accepted"], by_status["rejected"]
    assert accepted["reason"] == accepted["audit"]["reason"] and accepted["audit"]["accepted"]
    assert rejected["reason"] == rejected["audit"]["reason"] and not rejected["audit"]["accepted"]
    assert (rejected["reward_repaired"], rejected["repaired_first_error"]) == (1.0, 1)
    assert rejected["gate_first_step"] is None and accepted["gate_first_step"] == 1
    unrepaired = by_status["unrepaired"]
    assert (unrepaired["reason"], unrepaired["audit"]) == ("wrong", None)
    # The nearest of its repairs is the failed text itself.
    assert unrepaired["repaired"]["tokens"] == unrepaired["failed"]["tokens"]
    assert (unrepaired["reward_repaired"], unrepaired["anchor"]) == (0.0, OTHER_RIGHT)
    assert by_status["no_anchor"]["repaired"] is by_status["no_anchor"]["anchor"] is None
    right = by_status["right"]
    assert (right["reward_failed"], right["reason"], right["oracle_first_error"]) == (
        1.0,
        "correct",
        -1,
    )
    for record in records:
        trained = record["status"] == "accepted"
        assert any(record["failed"]["gate"]) == trained, record["status"]


@pytest.mark.parametrize(("limit", "statuses"), [(0, 0), (1, 1), (3, 3), (4, 4), (6, 4), (99, 4)])
def test_a_limit_leaves_out_no_status_for_more_of_another(limit, statuses):
    script = helpers.Script(repair=[[RIGHT, SHAM]])
    groups = [helpers.group(*[FAILED] * 6, *[OTHER_RIGHT] * 3), helpers.group(FAR, FAR)]
    records = shown(groups, script, **{"train.log_rollouts": limit})
    counts = collections.Counter(r["status"] for r in records)
    assert len(records) == min(limit, 6 + 6 + 3 + 2) and len(counts) == statuses
    assert max(counts.values(), default=0) - min(counts.values(), default=0) <= 1 or limit == 99


def test_records_come_from_one_group_after_the_other():
    other = dataclasses.replace(helpers.PROBLEM, prompt="8 3 5 2")
    groups = [
        helpers.group(RIGHT, OTHER_RIGHT, RIGHT),
        helpers.group("1 5 2 ; 6 2 ; 8 ; = 8", problem=other),
    ]
    records = shown(groups, helpers.Script(), **{"train.log_rollouts": 2})
    assert [r["problem"] for r in records] == ["3 8 5 2", "8 3 5 2"]


def test_a_second_accepted_repair_is_shown_as_surplus():
    script = helpers.Script(repair=[["1 5 2 ; 1 7 ; 8 ; = 8", "3 3 2 ; 3 5 ; 8 ; = 8"]])
    records = shown([helpers.group(FAILED, RIGHT)], script, iop__audit="none")
    assert sorted(r["status"] for r in records) == ["accepted", "right", "surplus"]


def test_failures_that_are_trained_whole_are_shown_so():
    script = helpers.Script(repair=[[SHAM, SHAM], [FAR, FAR]])
    groups = [helpers.group(FAILED, FAILED, OTHER_RIGHT)]
    records = shown(groups, script, iop__unrepaired="outcome")
    pairs = [r for r in records if r["kind"] == "pair"]
    assert {r["status"] for r in pairs} == {"rejected", "unrepaired"}
    for record in pairs:
        assert all(record["failed"]["gate"]) and set(record["failed"]["advantage"]) == {-1.0}
        assert not any(record["repaired"]["gate"]) and set(record["repaired"]["advantage"]) == {0.0}
