"""Knights and Knaves: one solution each, the split, verdicts by the set of roles.

Host side. Reads: nothing. Writes: nothing.
"""

import itertools
import re

import pytest

from jaxrl_reason import evaluate
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.tasks import base, knights
from jaxrl_reason.tasks.knights import Knights
from jaxrl_reason.types import Problem

TASK = Knights(3)
PROBLEM = Problem("p", "", "Ada is a knight, Ben is a knave, Cleo is a knave")


def _truth(sentence, roles):
    """What a sentence of a puzzle says, read from its text: an oracle that shares no code with the generator."""
    found = re.findall(r"(\w+) is a (knight|knave)", sentence)
    values = [roles[name] == (role == "knight") for name, role in found]
    if len(values) == 1:
        return values[0]
    if sentence.startswith("If"):
        return not values[0] or values[1]
    if " exactly if " in sentence:
        return values[0] == values[1]
    return all(values) if " and " in sentence else any(values)


@pytest.mark.parametrize("people", [2, 3, 8])
def test_puzzles_have_one_solution_which_their_text_shows(people):
    task = Knights(people)
    problems = task.batch(1, 2, 12)
    assert problems[:4] == task.batch(1, 2, 4) and problems != task.batch(1, 3, 12)
    for problem in problems:
        said = re.findall(r'^(\w+) says: "(.*)\."$', problem.prompt, re.M)
        names = [name for name, _ in said]
        assert len(set(names)) == people
        fitting = []
        for values in itertools.product((True, False), repeat=people):
            roles = dict(zip(names, values, strict=True))
            if all(roles[name] == _truth(sentence, roles) for name, sentence in said):
                fitting.append(roles)
        assert fitting == [knights.read_roles(problem.answer)], problem.prompt
    verdicts = task.verify(problems, [p.reference for p in problems])
    assert {v.reason for v in verdicts} == {"correct"}
    tokenizer = tokenizers.make_tokenizer(task.tokenizer_name)
    failed, anchor = "f" * task.completion_tokens, "a" * (task.completion_tokens - 1)
    for problem in problems:
        repair = task.repair_prompt(problem, failed, anchor)
        assert repair.count(failed) == repair.count(anchor) == repair.count(problem.prompt) == 1
        sizes = [
            len(tokenizers.encode_prompt(tokenizer, t))
            for t in (task.policy_prompt(problem), repair)
        ]
        assert sizes[0] <= task.prompt_tokens and sizes[1] <= task.repair_prompt_tokens
        assert (
            len(tokenizers.encode_completion(tokenizer, problem.reference))
            <= task.completion_tokens
        )


def test_training_and_evaluation_share_no_puzzle():
    # Without names, since a puzzle with other names is the same puzzle.
    def keys(task):
        found = set()
        for update in range(2):
            for problem in task.batch(0, update, 40):
                names = re.findall(r"^(\w+) says", problem.prompt, re.M)
                text = problem.prompt
                for i, name in enumerate(names):
                    text = text.replace(name, f"<{i}>")
                found.add(text)
        return found

    asked = evaluate.whole_task(TASK)
    train, held_out = keys(TASK), keys(asked)
    assert isinstance(asked, base.Task) and not isinstance(asked, base.StepOracle)
    assert len(train) > 60 and len(held_out) > 20 and not train & held_out


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Ada is a knight, Ben is a knave, Cleo is a knave", "correct"),
        ("Cleo is a knave; Ada: knight and BEN = knave.", "correct"),
        ("(1) Ada is a knight, (2) Ben is a knave, and (3) Cleo is a knave", "correct"),
        (r"**Ada** is a **knight**, Ben is a knave, Cleo is a knave", "correct"),
        ("Ada is a knight, Ben is a knave, Cleo is a knight", "wrong"),
        ("Ada is a knight, Ben is a knave", "unparsable"),
        ("Ada is a knight, Ben is a knave, Cleo is a knave, Dora is a knave", "unparsable"),
        ("Ada is a knight, Ada is a knave, Ben is a knave, Cleo is a knave", "unparsable"),
        ("Ada is a knight or a knave, Ben is a knave, Cleo is a knave", "unparsable"),
        ("Ada is not a knave, Ben is a knave, Cleo is a knave", "unparsable"),
        ("Ada is a knight, Ben is a knave, Cleo is a knave unless Ada lies", "unparsable"),
        ("Ada, Ben and Cleo are knights", "unparsable"),
        ("", "unparsable"),
        ("Ada is a knight, " * 100_000, "unparsable"),
        ("and" * 300_000, "unparsable"),
    ],
)
def test_verify(answer, reason):
    boxed, marked = TASK.verify(
        [PROBLEM] * 2, [f"so \\boxed{{{answer}}}", f"Try: x.\n#### {answer}\nso"]
    )
    assert boxed.reason == marked.reason == reason
    assert (marked.answer == PROBLEM.answer) == (reason == "correct")


def test_a_text_without_a_place_for_its_answer_has_none():
    assert TASK.verify([PROBLEM], [PROBLEM.answer])[0].reason == "unparsable"
    with pytest.raises(ValueError):
        TASK.verify([PROBLEM], [])


def test_number_of_people():
    for people in (1, 9):
        with pytest.raises(ValueError, match=f"people = {people}: must be in"):
            Knights(people)
