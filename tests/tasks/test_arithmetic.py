"""Arithmetic: legal merges by brute force, the step oracle, corruptions, minimal repairs, budgets.

Host side. Reads: nothing. Writes: nothing.
"""

import itertools

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.tasks import base
from jaxrl_reason.tasks.arithmetic import Arithmetic, legal_merges
from jaxrl_reason.types import Problem

SETTINGS = [(2, 2, "+"), (4, 10, "-"), (6, 10, "+"), (5, 7, "*-"), (6, 20, "+-*"), (8, 3, "-*+")]


def _problem(prompt, answer):
    return Problem(id="p", prompt=prompt, answer=answer)


def _python_value(numbers, operators, modulus):
    """The usual rules of arithmetic, by Python itself, on text made here."""
    pairs = zip(operators, map(str, numbers[1:]), strict=True)
    return eval(str(numbers[0]) + "".join(o + n for o, n in pairs)) % modulus


def _merged(numbers, operators, i, modulus):
    result = _python_value(numbers[i : i + 2], operators[i], modulus)
    return (*numbers[:i], result, *numbers[i + 2 :]), operators[:i] + operators[i + 1 :]


def _distance(a, b):
    return Levenshtein.distance(a.split(), b.split())


def test_an_orderly_expert_merges_from_the_left():
    task = Arithmetic(length=4, operators="+*", expert_order="left")
    # 3 + 8 * 5 + 2: the product binds, so the leftmost legal merge is the second; then the first.
    problem = _problem("3 + 8 * 5 + 2", "5")
    texts = {task.demonstrate(problem, np.random.default_rng(seed)) for seed in range(8)}
    assert texts == {"3 + 0 + 2 ; 3 + 2 ; 5 ; = 5"}
    with pytest.raises(ValueError, match="expert_order = 'right'"):
        Arithmetic(expert_order="right")


# --- legal merges ---


@pytest.mark.parametrize("gaps", [1, 2, 3])
def test_a_merge_is_legal_exactly_if_it_keeps_the_value_for_all_numbers(gaps):
    # Modulo 5 tells + from - (modulo 2 they are the same); 3 gaps hold both neighbours of a gap.
    for operators in map("".join, itertools.product("+-*", repeat=gaps)):
        assert legal_merges(operators), operators
        for i in range(gaps):
            kept = all(
                _python_value(*_merged(numbers, operators, i, 5), 5)
                == _python_value(numbers, operators, 5)
                for numbers in itertools.product(range(5), repeat=gaps + 1)
            )
            assert kept == (i in legal_merges(operators)), (operators, i)


def test_every_order_of_legal_merges_reaches_the_same_answer():
    def answers(numbers, operators, modulus):
        if not operators:
            return {numbers[0]}
        return set().union(
            *(
                answers(*_merged(numbers, operators, i, modulus), modulus)
                for i in legal_merges(operators)
            )
        )

    rng = np.random.default_rng(0)
    for modulus in (2, 7, 10):
        for _ in range(60):
            numbers = tuple(rng.integers(modulus, size=6).tolist())
            operators = "".join(rng.choice(list("+-*"), size=5))
            assert answers(numbers, operators, modulus) == {
                _python_value(numbers, operators, modulus)
            }


# --- problems ---


@pytest.mark.parametrize(("length", "modulus", "operators"), SETTINGS)
def test_batch_is_pure_in_range_and_its_answers_are_right(length, modulus, operators):
    task = Arithmetic(length, modulus, operators)
    problems = task.batch(3, 5, 40, attempt=1)
    assert problems == Arithmetic(length, modulus, operators).batch(3, 5, 40, attempt=1)
    assert problems[:7] == task.batch(3, 5, 7, attempt=1)
    assert problems[2].id == "arithmetic-3-5-1-2"
    for problem in problems:
        words = problem.prompt.split()
        numbers = words if operators == "+" else words[::2]
        gaps = "+" * (length - 1) if operators == "+" else "".join(words[1::2])
        values = [int(n) for n in numbers]
        assert len(values) == length and all(0 <= v < modulus for v in values)
        assert set(gaps) <= set(operators)
        assert int(problem.answer) == _python_value(values, gaps, modulus)


def test_every_argument_of_batch_changes_the_problems():
    task = Arithmetic()
    prompts = [
        tuple(p.prompt for p in task.batch(seed, update, 8, attempt))
        for seed, update, attempt in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]
    ]
    assert len(set(prompts)) == len(prompts)


def test_numbers_and_operators_are_uniform():
    words = [p.prompt.split() for p in Arithmetic(6, 5, "+-*").batch(0, 0, 2000)]
    numbers = np.bincount([int(w) for row in words for w in row[::2]], minlength=5) / 12_000
    signs = [w for row in words for w in row[1::2]]
    # Standard deviations: sqrt(.2 * .8 / 12000) = .0037 and sqrt(1/3 * 2/3 / 10000) = .0047.
    np.testing.assert_allclose(numbers, 0.2, atol=0.02)
    for sign in "+-*":
        assert abs(signs.count(sign) / 10_000 - 1 / 3) < 0.025


def test_prompts():
    task, problem = Arithmetic(4), _problem("3 8 5 2", "8")
    assert task.policy_prompt(problem) == "solve 3 8 5 2 :"
    assert (
        task.repair_prompt(problem, "1 5 2 ; = 7", "3 8 7 ; = 8")
        == "repair 3 8 5 2 : 3 8 7 ; = 8 | 1 5 2 ; = 7 |"
    )
    assert task.repair_prompt(problem, "", "= 8") == "repair 3 8 5 2 : = 8 | |"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ((1, 10, "+"), "length = 1"),
        ((17, 10, "+"), "length = 17"),
        ((6, 1, "+"), "modulus = 1"),
        ((6, 101, "+"), "modulus = 101"),
        ((6, 10, ""), "operators = ''"),
        ((6, 10, "+/"), "operators = '\\+/'"),
        ((6, 10, "++"), "operators = '\\+\\+'"),
    ],
)
def test_bad_settings_are_named(settings, named):
    with pytest.raises(ValueError, match=named):
        Arithmetic(*settings)


def test_a_foreign_problem_is_named():
    with pytest.raises(ValueError, match="problem p: '3 11' is no list of numbers in 0..9"):
        Arithmetic(2).first_error(_problem("3 11", "4"), "4 ; = 4")


# --- outcome ---


@pytest.mark.parametrize(
    ("completion", "reason", "answer"),
    [
        ("1 5 2 ; 1 7 ; 8 ; = 8", "correct", "8"),
        ("= 8", "correct", "8"),  # steps are not looked at
        ("9 ; = 3 ; = 8", "correct", "8"),  # the last "=" counts
        ("= 08", "correct", "8"),  # compared as integers
        ("8 ; = 7", "wrong", "7"),
        ("= 18", "wrong", "18"),
        ("= 8 ; = 7", "wrong", "7"),
        ("1 5 2 ; 1 7 ; 8", "unparsable", None),
        ("8 ; =", "unparsable", None),
        ("= 8 ;", "unparsable", None),
        ("= 8 8", "unparsable", None),
        ("= eight", "unparsable", None),
        ("= 8.0", "unparsable", None),
        ("= ٨", "unparsable", None),  # a digit, but not an ASCII one
        ("= " + "8" * 100_000, "unparsable", None),
        ("", "unparsable", None),
    ],
)
def test_verify(completion, reason, answer):
    (verdict,) = Arithmetic(4).verify([_problem("3 8 5 2", "8")], [completion])
    assert (verdict.reason, verdict.answer) == (reason, answer)
    assert verdict.reward == (reason == "correct")


def test_verify_needs_one_completion_per_problem():
    with pytest.raises(ValueError):
        Arithmetic(4).verify([_problem("3 8 5 2", "8")], [])


# --- step oracle ---


@pytest.mark.parametrize(
    ("completion", "step"),
    [
        ("1 5 2 ; 1 7 ; 8 ; = 8", -1),
        ("3 3 2 ; 6 2 ; 8 ; = 8", -1),
        (" 3 8 7 ;  3 5;8 ;= 8 ", -1),  # white space does not matter
        ("2 5 2 ; 2 7 ; 9 ; = 9", 0),  # 3 + 8 is 1
        ("1 5 2 ; 1 8 ; 9 ; = 9", 1),
        ("1 5 2 ; 1 7 ; 7 ; = 7", 2),
        ("1 5 2 ; 1 7 ; 8 ; = 7", 3),
        ("2 5 2 ; 1 7 ; 8 ; = 8", 0),  # the right answer does not mend a wrong step
        ("1 7 ; 8 ; = 8", 0),  # two merges at once
        ("1 5 2 ; 1 5 2 ; 1 7 ; 8 ; = 8", 1),  # no merge
        ("1 5 2 ; 1 7 x ; 8 ; = 8", 1),
        ("1 5 2 ; = 8", 1),
        ("1 5 2 ; 1 7 ; 8", 3),  # no answer
        ("1 5 2 ; 1 7 ; 8 ;", 3),
        ("1 5 2 ; 1 7", 2),
        ("1 5 2 ; 1 7 ; 8 ; = 8 ;", 3),  # something after the answer
        ("1 5 2 ; 1 7 ; 8 ; = 8 ; = 8", 3),
        ("1 5 2 ; 1 7 ; 8 ; 8", 3),
        ("1 5 2 ; 1 7 ; 18 ; = 8", 2),
        ("", 0),
        (";;;;;;;;", 0),
    ],
)
def test_first_error(completion, step):
    assert Arithmetic(4).first_error(_problem("3 8 5 2", "8"), completion) == step


@pytest.mark.parametrize(
    ("completion", "step"),
    [
        ("3 + 0 - 2 ; 3 + 8 ; 1 ; = 1", -1),  # 3 + 8 * 5 - 2 = 41
        ("3 + 0 - 2 ; 3 - 2 ; 1 ; = 1", -1),
        ("1 * 5 - 2 ; 5 - 2 ; 3 ; = 3", 0),  # 3 + 8 although 8 belongs to a product
        ("3 + 8 * 3 ; 3 + 4 ; 7 ; = 7", 0),
        ("3 - 0 - 2 ; 3 - 2 ; 1 ; = 1", 0),  # a sign changed on the way
        ("3 0 2 ; 3 8 ; 1 ; = 1", 0),  # signs must be shown
    ],
)
def test_first_error_with_operators(completion, step):
    task = Arithmetic(4, 10, "+-*")
    assert task.first_error(_problem("3 + 8 * 5 - 2", "1"), completion) == step


def test_a_forbidden_merge_is_an_error_even_where_the_value_is_kept_by_luck():
    # 4 - (2 + 0) = 4 - 2 + 0, but only since the last number is 0.
    task, problem = Arithmetic(3, 10, "+-"), _problem("4 - 2 + 0", "2")
    assert task.first_error(problem, "4 - 2 ; 2 ; = 2") == 0
    assert task.first_error(problem, "2 + 0 ; 2 ; = 2") == -1


# --- demonstrations, corruptions, repairs ---


@pytest.mark.parametrize(("length", "modulus", "operators"), SETTINGS)
def test_demonstrations_are_right_and_corruptions_carry_a_wrong_answer(length, modulus, operators):
    task, rng = Arithmetic(length, modulus, operators), np.random.default_rng(1)
    for problem in task.batch(0, 0, 100):
        right = task.demonstrate(problem, rng)
        wrong = task.corrupt(problem, right, rng)
        assert task.first_error(problem, right) == -1
        assert task.verify([problem] * 2, [right, wrong])[0].reason == "correct"
        assert task.verify([problem] * 2, [right, wrong])[1].reason == "wrong"
        assert 0 <= task.first_error(problem, wrong) < length - 1
        assert len(wrong.split()) == len(right.split())


def _mistakes(task, problem, text):
    """Counted by taking the list after a wrong step as a new problem, until all the rest is right."""
    count = 0
    while (step := task.first_error(problem, text)) != -1:
        parts = text.split(" ; ")
        problem, text = _problem(parts[step], "0"), " ; ".join(parts[step + 1 :])
        count += 1
        if len(problem.prompt.split()) == 1:
            assert text == f"= {problem.prompt}"
            break
    return count


def test_corruptions_make_one_to_all_mistakes_and_carry_them_on():
    task, rng = Arithmetic(6, 10, "+"), np.random.default_rng(2)
    counts = []
    for problem in task.batch(0, 0, 300):
        text = task.corrupt(problem, task.demonstrate(problem, rng), rng)
        counts.append(_mistakes(task, problem, text))
    # Uniform on 1..5: each 60 times of 300, standard deviation 7.
    assert set(counts) == {1, 2, 3, 4, 5}
    assert all(30 < counts.count(n) < 90 for n in range(1, 6))


def test_demonstrations_differ():
    task, rng = Arithmetic(6), np.random.default_rng(0)
    (problem,) = task.batch(0, 0, 1)
    assert len({task.demonstrate(problem, rng) for _ in range(50)}) > 20


def test_corrupt_refuses_a_wrong_derivation():
    with pytest.raises(ValueError, match="step 1 is wrong"):
        Arithmetic(3).corrupt(_problem("1 2 3", "6"), "3 3 ; 7 ; = 7", np.random.default_rng(0))


@pytest.mark.parametrize(
    ("failed", "repaired"),
    [
        ("1 5 2 ; 1 7 ; 8 ; = 8", "1 5 2 ; 1 7 ; 8 ; = 8"),
        ("1 5 2 ; 1 7 ; 8 ; = 3", "1 5 2 ; 1 7 ; 8 ; = 8"),
        ("2 5 2 ; 2 7 ; 9 ; = 9", "1 5 2 ; 1 7 ; 8 ; = 8"),
        ("3 8 6 ; 9 6 ; 5 ; = 5", "3 8 7 ; 1 7 ; 8 ; = 8"),  # both results wrong, merges kept
        ("1 5 2 ; 1 5 2 ; 1 7 ; 8 ; = 8", "1 5 2 ; 1 7 ; 8 ; = 8"),  # a step too many
        ("1 7 ; 8 ; = 8", "1 5 2 ; 1 7 ; 8 ; = 8"),  # a merge left out; 3 8 7 is as near
        ("1 5 2 ; 1 x 7 ; 8 ; = 8", "1 5 2 ; 1 7 ; 8 ; = 8"),  # a junk word
        ("1 2 ; 1 7 ; 8 ; = 8", "1 5 2 ; 1 7 ; 8 ; = 8"),  # a number lost
    ],
)
def test_repair_by_hand(failed, repaired):
    task, problem = Arithmetic(4), _problem("3 8 5 2", "8")
    results = {task.repair(problem, failed, np.random.default_rng(seed)) for seed in range(8)}
    assert repaired in results
    nearest = _distance(repaired, failed)
    assert all(_distance(result, failed) == nearest for result in results)


def test_repair_prefers_the_merge_whose_result_was_right():
    # "4 * 0" shows 3 * 0 merged rightly, or 4 * 3 merged into a wrong 4. The first step is kept.
    task, problem = Arithmetic(3, 10, "*"), _problem("4 * 3 * 0", "0")
    rng = np.random.default_rng(0)
    assert task.repair(problem, "4 * 0 ; 7 ; = 7", rng) == "4 * 0 ; 0 ; = 0"


def test_repair_reads_a_step_against_the_failed_list_and_applies_it_to_the_corrected_one():
    # 3 + 8 is 1, not 9. The next step merges 5 + 2 of 9 5 2 7, so the repair merges it of 1 5 2 7.
    task, problem = Arithmetic(5), _problem("3 8 5 2 7", "5")
    failed = "9 5 2 7 ; 9 7 7 ; 6 7 ; 3 ; = 3"
    repaired = task.repair(problem, failed, np.random.default_rng(0))
    assert repaired == "1 5 2 7 ; 1 7 7 ; 8 7 ; 5 ; = 5"


def test_repair_replaces_a_forbidden_merge_by_a_legal_one():
    task, problem = Arithmetic(3, 10, "+-*"), _problem("4 - 2 + 1", "3")
    repaired = task.repair(problem, "4 - 3 ; 1 ; = 1", np.random.default_rng(0))
    assert repaired == "2 + 1 ; 3 ; = 3"  # the only legal order


@pytest.mark.parametrize(("length", "modulus", "operators"), SETTINGS)
def test_repair_of_a_right_derivation_is_itself(length, modulus, operators):
    task, rng = Arithmetic(length, modulus, operators), np.random.default_rng(3)
    for problem in task.batch(1, 0, 150):
        right = task.demonstrate(problem, rng)
        assert task.repair(problem, right, rng) == right


def _derivations(task, problem):
    """Every right solution of a problem without visible operators."""

    def extend(numbers, text):
        if len(numbers) == 1:
            yield f"{text}= {numbers[0]}"
        for i in range(len(numbers) - 1):
            merged, _ = _merged(numbers, "+" * (len(numbers) - 1), i, task.modulus)
            yield from extend(merged, text + " ".join(map(str, merged)) + " ; ")

    return list(extend(tuple(int(w) for w in problem.prompt.split()), ""))


def test_repairs_of_corruptions_are_as_near_as_any_right_solution():
    task, rng = Arithmetic(6, 10, "+"), np.random.default_rng(4)
    for problem in task.batch(2, 0, 300):
        failed = task.corrupt(problem, task.demonstrate(problem, rng), rng)
        # With several mistakes, a solution with another order can be nearer by chance.
        if _mistakes(task, problem, failed) > 1:
            continue
        repaired = task.repair(problem, failed, rng)
        nearest = min(_distance(text, failed) for text in _derivations(task, problem))
        assert _distance(repaired, failed) == nearest


@pytest.mark.parametrize(
    ("length", "modulus", "operators"), [(6, 10, "+"), (6, 20, "+-*"), (8, 3, "*+")]
)
def test_repairs_are_right_and_far_nearer_than_another_solution(length, modulus, operators):
    task, rng = Arithmetic(length, modulus, operators), np.random.default_rng(5)
    repaired_distance, other_distance = [], []
    for problem in task.batch(3, 0, 350):
        failed = task.corrupt(problem, task.demonstrate(problem, rng), rng)
        repaired = task.repair(problem, failed, rng)
        assert task.first_error(problem, repaired) == -1
        repaired_distance.append(_distance(repaired, failed))
        other_distance.append(_distance(task.demonstrate(problem, rng), failed))
    assert np.mean(repaired_distance) < 0.6 * np.mean(other_distance)


def _damaged(task, text, rng, rate):
    """Drop, change and insert words at random, any word of the vocabulary."""
    vocabulary = [*map(str, range(task.modulus)), ";", "=", "|", "+", "-", "*", "junk", "999"]
    words = []
    for word in text.split():
        u = rng.random()
        if u >= rate / 3:
            words.append(word if u >= 2 * rate / 3 else rng.choice(vocabulary))
        if rng.random() < rate / 3:
            words.append(rng.choice(vocabulary))
    return " ".join(words)


@pytest.mark.parametrize(("length", "modulus", "operators"), SETTINGS)
def test_repairs_of_damaged_texts_are_right(length, modulus, operators):
    task, rng = Arithmetic(length, modulus, operators), np.random.default_rng(6)
    for i, problem in enumerate(task.batch(4, 0, 150)):
        failed = _damaged(task, task.demonstrate(problem, rng), rng, (0.1, 0.3, 1.0)[i % 3])
        repaired = task.repair(problem, failed, rng)
        assert task.first_error(problem, repaired) == -1, (problem.prompt, failed, repaired)
        assert task.first_error(problem, failed) in range(-1, length)


def test_repairs_of_lightly_damaged_texts_stay_near():
    task, rng = Arithmetic(6, 10, "+"), np.random.default_rng(7)
    near, other = [], []
    for problem in task.batch(5, 0, 400):
        failed = _damaged(task, task.demonstrate(problem, rng), rng, 0.1)
        near.append(_distance(task.repair(problem, failed, rng), failed))
        other.append(_distance(task.demonstrate(problem, rng), failed))
    assert np.mean(near) < 0.5 * np.mean(other)


@pytest.mark.parametrize("failed", ["", "=", ";" * 50_000, "1 " * 50_000, "junk ; ; 3 3 ; = = 4"])
def test_repair_and_oracle_take_any_text(failed):
    task, problem = Arithmetic(4), _problem("3 8 5 2", "8")
    repaired = task.repair(problem, failed, np.random.default_rng(0))
    assert task.first_error(problem, repaired) == -1
    assert task.first_error(problem, failed) == 0


# --- budgets ---


@pytest.mark.parametrize(("length", "modulus", "operators"), [*SETTINGS, (16, 100, "+-*")])
def test_longest_encodings_fit_exactly(length, modulus, operators):
    task, rng = Arithmetic(length, modulus, operators), np.random.default_rng(8)
    tokenizer = tokenizers.make_tokenizer(task.tokenizer_name)
    for problem in task.batch(6, 0, 5):
        text = task.demonstrate(problem, rng)
        ids = tokenizers.encode_completion(tokenizer, text)
        assert len(ids) == task.completion_tokens
        assert tokenizer.unk_token_id not in ids
        prompt = tokenizers.encode_prompt(tokenizer, task.policy_prompt(problem))
        assert len(prompt) == task.prompt_tokens
        out_of_budget = f"{text} ;"  # as many tokens, EOS not reached
        repair_prompt = task.repair_prompt(problem, out_of_budget, text)
        ids = tokenizers.encode_prompt(tokenizer, repair_prompt)
        assert len(ids) == task.repair_prompt_tokens
        assert tokenizer.unk_token_id not in ids


def test_budgets_by_hand():
    # "solve 3 8 5 2 :" and BOS: 7. "1 5 2 ; 1 7 ; 8 ; = 8" and EOS: 4 + 3 + 2 + 2 + 1 = 12.
    # "repair 3 8 5 2 :" and BOS: 7, failed without EOS: 12, "|": 1, anchor: 11, "|": 1; 32 in all.
    task = Arithmetic(4)
    budgets = (task.prompt_tokens, task.completion_tokens, task.repair_prompt_tokens)
    assert budgets == (7, 12, 32)


def test_offers_all_protocols():
    task = Arithmetic()
    assert isinstance(task, base.Task)
    assert isinstance(task, base.StepOracle)
    assert isinstance(task, base.Demonstrator)
