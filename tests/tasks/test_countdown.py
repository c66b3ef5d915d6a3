"""Countdown and 24: solvable problems, the split, verdicts, the step oracle.

Host side. Reads: nothing. Writes: nothing.
"""

import itertools
import time
from fractions import Fraction

import pytest

from jaxrl_reason import evaluate
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.tasks import base, countdown
from jaxrl_reason.tasks.countdown import Countdown
from jaxrl_reason.types import Problem

TASKS = {
    "countdown": Countdown(),
    "three": Countdown(3, largest=9, max_target=30),
    "some": Countdown(5, use_all=False),
    "game24": countdown.game24(),
}
PROBLEM = Problem(id="p", prompt="3 5 8 -> 25", answer="25")


@pytest.mark.parametrize("name", TASKS)
def test_problems_are_pure_solvable_and_fit(name):
    task = TASKS[name]
    assert isinstance(task, base.Task) and isinstance(task, base.StepOracle | base.HoldsOut)
    problems = task.batch(3, 4, 20, 1)
    assert problems[:5] == task.batch(3, 4, 5, 1)
    assert len({p.prompt for p in problems}) > 15
    assert problems != task.batch(3, 5, 20, 1) != task.batch(4, 4, 20, 1)
    verdicts = task.verify(problems, [p.reference for p in problems])
    assert {v.reason for v in verdicts} == {"correct"}
    assert {task.first_error(p, p.reference) for p in problems} == {-1}
    tokenizer = tokenizers.make_tokenizer(task.tokenizer_name)
    for p in problems:
        assert len(tokenizers.encode_completion(tokenizer, p.reference)) <= task.completion_tokens
        assert len(tokenizers.encode_prompt(tokenizer, task.policy_prompt(p))) <= task.prompt_tokens
        failed, anchor = "f" * task.completion_tokens, "a" * (task.completion_tokens - 1)
        repair = task.repair_prompt(p, failed, anchor)
        assert repair.count(failed) == repair.count(anchor) == 1
        assert len(tokenizers.encode_prompt(tokenizer, repair)) <= task.repair_prompt_tokens
        numbers, target = countdown.read_problem(p)
        assert len(numbers) == task.numbers and max(numbers) <= task.largest and min(numbers) >= 1
        assert 1 <= target <= task.max_target


@pytest.mark.parametrize("name", ["three", "game24"])
def test_training_and_evaluation_share_no_problem(name):
    def keys(task):
        read = [
            countdown.read_problem(p) for update in range(3) for p in task.batch(0, update, 100)
        ]
        return {(tuple(sorted(numbers)), target) for numbers, target in read}

    task = TASKS[name]
    asked = evaluate.whole_task(task)
    assert asked is not task and evaluate.whole_task(asked) is asked
    train, held_out = keys(task), keys(asked)
    assert len(train) > 100 and len(held_out) > 20 and not train & held_out


def test_hands_of_24():
    # 1362 of the 1820 hands can make 24, as is known of the game.
    hands = itertools.combinations_with_replacement([Fraction(n) for n in range(1, 14)], 4)
    assert sum(countdown.derive(hand, 24, True) is not None for hand in hands) == 1362


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8 - 3 = 5\n5 * 5 = 25\n#### (8 - 3) * 5", "correct"),
        (r"so \boxed{(8 - 3) * 5}", "correct"),
        ("the answer is (8-3)*5 = 25.", "correct"),
        ("#### 25", "wrong"),
        ("#### 5 * 5", "wrong"),
        ("(8 - 3) * 5", "unparsable"),  # no place that says so
        ("#### ", "unparsable"),
        ("", "unparsable"),
        ("#### __import__('os').abort()", "unparsable"),
        ("#### " + "9**" * 600 + "9", "unparsable"),
        ("#### (8 - 3) * 5\n#### 8", "wrong"),  # the last one counts
    ],
)
def test_verify(text, reason):
    (verdict,) = TASKS["three"].verify([PROBLEM], [text])
    assert verdict.reason == reason and verdict.reward == (reason == "correct")
    assert (verdict.answer is None) == (reason == "unparsable")


def test_verify_is_quick_on_hostile_text():
    texts = [
        "#### " + "(" * 500_000,
        "\\boxed{" * 100_000,
        "#### " + "8+" * 400_000,
        "9^" * 400_000,
    ]
    start = time.perf_counter()
    verdicts = TASKS["three"].verify([PROBLEM] * 4, texts)
    assert {v.reason for v in verdicts} == {"unparsable"}
    assert time.perf_counter() - start < 2
    with pytest.raises(ValueError):
        TASKS["three"].verify([PROBLEM], texts)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("8 - 3 = 5\n5 * 5 = 25\n#### (8 - 3) * 5", -1),
        ("\n8-3=5\n\n5*5=25\n\n#### 5 * (8 - 3)", -1),
        ("#### (8 - 3) * 5", -1),
        ("8 - 3 = 6\n6 * 5 = 30\n#### (8 - 3) * 5", 0),  # false
        ("8 - 5 = 3\n3 * 3 = 9\n#### (8 - 3) * 5", 0),  # true, but no way leads on
        ("8 - 3 = 5\n5 + 5 = 10\n#### (8 - 3) * 5", 1),
        ("8 - 3 = 5\n5 * 4 = 20\n#### (8 - 3) * 5", 1),  # a number that is not there
        ("5 * 5 = 25\n#### (8 - 3) * 5", 0),  # one 5 is there
        ("8 - 3 = 5\nso we get\n5 * 5 = 25\n#### (8 - 3) * 5", 1),
        ("8 - 3 = 5\n5 * 5 = 25\n#### (8 - 3) * 6", 2),
        ("8 - 3 = 5\n5 * 5 = 25", 2),
        ("8 - 3 = 5\n5 * 5 = 25\nit is #### (8 - 3) * 5", 2),
        ("8 / 0 = 8\n", 0),
        ("", 1),
    ],
)
def test_first_error(text, step):
    assert TASKS["three"].first_error(PROBLEM, text) == step


def test_first_error_reads_fractions():
    problem = Problem(id="p", prompt="3 3 8 8 -> 24", answer="24")
    text = "8 / 3 = 8/3\n3 - 8/3 = 1/3\n8 / 1/3 = 24\n#### 8 / (3 - 8 / 3)"
    assert TASKS["game24"].first_error(problem, text) == -1
    assert TASKS["game24"].first_error(problem, text.replace("1/3\n8", "1/4\n8")) == 1


def test_settings_and_prompts_out_of_range():
    for settings in (
        {"numbers": 6},
        {"numbers": 2},
        {"largest": 1},
        {"max_target": 0},
        {"target": 101},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(settings))} = "):
            Countdown(**settings)
    with pytest.raises(ValueError, match="problem p: 'three -> 4' is no list"):
        TASKS["three"].verify([Problem("p", "three -> 4", "4")], ["#### 4"])
