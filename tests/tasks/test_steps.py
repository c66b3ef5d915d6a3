"""Next-step instances: how a solution is cut, how problems are drawn and asked, what a written step is worth."""

from __future__ import annotations

import json

import pytest

from jaxrl_reason import config, evaluate, tasks
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.tasks import arithmetic, base, gsm8k, steps

SOLUTION = "1 5 2 ; 1 7 ; 8 ; = 8"


def make(whole=None, **changes) -> steps.Steps:
    settings = dict(first=True, last=False, think=False, stop_at_separator=True) | changes
    return steps.Steps(whole or arithmetic.Arithmetic(length=4), **settings)


@pytest.mark.parametrize(
    ("first", "last", "wanted"),
    [
        (True, False, ["1 5 2", "1 7", "8"]),  # N - 1, as the paper's formula
        (False, True, ["1 7", "8", "= 8"]),
        (True, True, ["1 5 2", "1 7", "8", "= 8"]),
        (False, False, ["1 7", "8"]),
    ],
)
def test_a_solution_of_four_steps(first, last, wanted):
    cuts = steps.instances(SOLUTION, ";", first=first, last=last)
    assert [cut.step for cut in cuts] == wanted
    for cut in cuts:
        assert SOLUTION.startswith(cut.given)
        assert SOLUTION[len(cut.given) :].strip().startswith(cut.step)


TRL = [
    {
        "prompt": "1 + 1?",
        "completions": ["It is:\n\n1 + 1", "So \\boxed{2}"],
        "labels": [True, True],
    },
    {"prompt": "2 + 2?", "completions": ["Guess 5", "So \\boxed{5}"], "labels": [True, False]},
    {
        "prompt": "Which is larger?",
        "completions": ["0.8 is", "So 9.8", "Done"],
        "labels": [True, 1, None],
    },
]


def trl_task(tmp_path, rows, **changes):
    path = tmp_path / "trl.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = config.base().task
    settings.update({"name": "math", "path": str(path), "verify_workers": 0, "steps": True})
    settings.update(changes)
    return tasks.make_task(settings)


def test_trajectories_in_the_form_of_trl(tmp_path):
    with pytest.warns(UserWarning, match="1 of 3 .*\n  line 2: .*step 2 is labelled False"):
        task = trl_task(tmp_path, TRL, last_step=True, step_end="eos")
    found = {(p.meta["given"], p.answer) for p in task.batch(0, 0, 60)}
    one, other = TRL[0]["completions"], TRL[2]["completions"]
    assert found == {
        ("", one[0]), (f"{one[0]}\n\n", one[1]),
        ("", other[0]), (f"{other[0]}\n\n", other[1]), ("0.8 is\n\nSo 9.8\n\n", other[2]),
    }  # fmt: skip
    # Whole problems are asked where they have an answer.
    (asked,) = evaluate.whole_task(task).batch(0, 0, 1)
    assert (asked.prompt, asked.answer) == ("1 + 1?", "2")
    with pytest.warns(UserWarning, match="labelled False"):
        prepared = trl_task(tmp_path, TRL, last_step=True, data_dir=str(tmp_path / "data"))
    assert prepared.batch(3, 1, 5) == task.batch(3, 1, 5)
    with pytest.warns(UserWarning, match="labelled False"):
        assert [p.answer for p in trl_task(tmp_path, TRL, steps=False).problems] == ["2"]
    with pytest.raises(ValueError, match="math-1: has no final answer.*task.eval_path"):
        trl_task(tmp_path, TRL[2:])
    for row, words in (
        ({"prompt": "q", "completions": "abc", "labels": [True]}, "no list of texts"),
        ({"prompt": "q", "completions": ["a"], "labels": [True, True]}, "of one length"),
        ({"prompt": "q", "completions": [], "labels": []}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=f"trl.jsonl: 1 of 1 .*\n  line 1: .*{words}"):
            trl_task(tmp_path, [row])


def test_prompts_hold_solutions_of_any_length(tmp_path):
    rows = [{"problem": "q", "solution": "\n\n".join(["x" * 400] * 4) + " So \\boxed{1}"}]
    task = trl_task(tmp_path, rows, last_step=True)
    longest = max(len(task.policy_prompt(p).encode()) for p in task.batch(0, 0, 20))
    assert 1200 < longest < task.prompt_tokens


def test_steps_by_a_rule(tmp_path):
    rows = [{"problem": "q", "solution": "Add. Then halve.\nIt is 3.5. So \\boxed{3.5}."}]
    task = trl_task(tmp_path, rows, last_step=True, step_rule="sentence")
    found = {(p.meta["given"], p.answer) for p in task.batch(0, 0, 40)}
    assert found == {
        ("", "Add."), ("Add.", "Then halve."), ("Add. Then halve.\n", "It is 3.5."),
        ("Add. Then halve.\nIt is 3.5.", "So \\boxed{3.5}."),
    }  # fmt: skip


def test_empty_steps_and_short_solutions():
    assert [c.step for c in steps.instances("a\n\nb\n", "\n", first=True, last=True)] == ["a", "b"]
    assert steps.instances("a", "\n", first=True, last=False) == []
    assert steps.instances("", "\n", first=True, last=True) == []


def test_problems_are_a_pure_function_of_seed_update_and_attempt():
    task = make()
    assert isinstance(task, base.Task)
    batch = task.batch(0, 3, 8)
    assert batch == task.batch(0, 3, 8)
    assert batch[:4] != task.batch(0, 4, 4) and batch[:4] != task.batch(0, 3, 4, attempt=1)
    assert len({p.id for p in batch}) == 8
    assert len({p.meta["given"].count(";") for p in task.batch(0, 0, 32)}) == 3, "every cut comes"
    for problem in batch:
        # What the expert writes is right so far, and its step goes on rightly.
        text = f"{problem.meta['given']} {problem.answer} ;".strip()
        error = task.whole.first_error(problem.meta["whole"], text)
        assert error == text.count(";")


def test_the_prompt_continues_as_if_the_policy_had_written_the_given_steps():
    task, tokenizer = make(), tokenizers.arithmetic_tokenizer()
    for problem in task.batch(0, 0, 16):
        whole = tokenizers.encode_prompt(tokenizer, task.whole.policy_prompt(problem.meta["whole"]))
        given = tokenizers.encode_completion(tokenizer, problem.meta["given"])[:-1]
        asked = tokenizers.encode_prompt(tokenizer, task.policy_prompt(problem))
        assert asked == whole + given
        assert len(asked) <= task.prompt_tokens


def test_references_are_experts_and_thoughts_are_asked_for(tmp_path):
    path = tmp_path / "train.jsonl"
    lines = ["2 + 2 = 4\n4 + 1 = 5\n#### 5", "#### 7"]
    path.write_text("".join(json.dumps({"question": f"{a}?", "answer": a}) + "\n" for a in lines))
    task = make(gsm8k.Gsm8k(path), first=False, think=True, stop_at_separator=False)
    # The second problem has no step to ask for: the first takes its place.
    problems = task.batch(0, 0, 2)
    assert [p.answer for p in problems] == ["4 + 1 = 5"] * 2
    assert len({p.id for p in problems}) == 2
    prompt = task.policy_prompt(problems[0])
    assert "Solution:\n2 + 2 = 4\n\nThink first" in prompt
    assert len(prompt.encode()) + 1 <= task.prompt_tokens
    path.write_text(json.dumps({"question": "q?", "answer": "#### 7"}) + "\n")
    with pytest.raises(ValueError, match="none of 1 problems has a solution with a step"):
        make(gsm8k.Gsm8k(path)).batch(0, 0, 1)


def test_a_written_step_is_worth_its_similarity():
    task = make()
    problem = task.batch(0, 0, 1)[0]
    right, near, nothing = f"{problem.answer} ; 9 9", f"{problem.answer} 9 ;", "; 1"
    first, second, third = task.verify([problem] * 3, [right, near, nothing])
    assert (first.reward, first.reason) == (1.0, "correct")
    size = len(problem.answer)
    assert second.reward == pytest.approx(2 * size / (2 * size + 2)) and second.reason == "wrong"
    assert (third.reward, third.reason) == (0.0, "unparsable")


def test_the_config_makes_it():
    c = config.base().task
    c.steps, c.think, c.last_step, c.step_end = True, True, True, "eos"
    task = tasks.make_task(c)
    assert (task.name, task.think, task.last, task.stop_at_separator) == (
        "arithmetic_steps",
        True,
        True,
        False,
    )
    assert task.whole.name == "arithmetic"
