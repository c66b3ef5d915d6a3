"""Copies: in one file, between training and evaluation, and held-out problems.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

from __future__ import annotations

import json
import warnings

import pytest

from jaxrl_reason import config, evaluate, tasks
from jaxrl_reason.tasks import copies, schedule
from jaxrl_reason.tasks.gsm8k import Gsm8k
from jaxrl_reason.tasks.maths import Maths
from jaxrl_reason.tasks.sources import Source


def write(folder, rows, name="train.jsonl"):
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def rows(numbers):
    return [
        {"problem": f"What is {i} + 1, said in figures?", "answer": str(i + 1)} for i in numbers
    ]


def test_copies_are_left_out_and_counted_in_one_line(tmp_path):
    path = write(tmp_path, rows(range(20)) * 30)
    with pytest.warns(UserWarning, match="580 copies of 20 questions are left out") as said:
        task = Maths(path)
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert "math-21 is math-1" in str(said[0].message)
    assert len(task) == 20
    for update in range(10):
        assert len({p.id for p in task.batch(0, update, 16)}) == 16


def test_questions_with_different_golds_are_out_with_all_copies(tmp_path):
    given = [
        *(("A?", "4"), ("a ?", "5"), ("B?", "4"), ("B?", "4.0"), ("C?", r"\frac12")),
        *(("C?", "0.5"), ("A?", "4"), ("D?", "1")),
    ]
    path = write(tmp_path, [{"problem": q, "answer": a} for q, a in given])
    with pytest.warns(
        UserWarning, match="3 records of 1 question with different gold answers"
    ) as said:
        task = Maths(path)
    assert "2 copies of 2 questions" in str(said[0].message)
    assert "math-1, '4' and '5'" in str(said[0].message)
    assert [p.id for p in task.problems] == ["math-3", "math-5", "math-8"]
    with pytest.raises(ValueError, match="no problem is left"):
        Maths(write(tmp_path, [{"problem": "A?", "answer": a} for a in "45"]))


def test_what_stands_before_a_question_belongs_to_it(tmp_path):
    user = {"role": "user", "content": "7 + 1?"}
    made = [
        {"prompt": [{"role": "system", "content": f"Base {base}."}, user], "answer": gold}
        for base, gold in ((8, "10"), (10, "8"))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Maths(write(tmp_path, made))) == 2


@pytest.mark.parametrize(
    "wrap",
    [
        "{}",
        "Solve the following math problem step by step.\n\n{}\n\nRemember to put your answer on its own line.",
        "You are a tutor for children of ten. A pupil asks you this: {} Be kind to the pupil.",
        "Q: {}\nA:",
        "{}  Answer with 3 digits after the point.",
    ],
)
@pytest.mark.parametrize("side", ["train", "eval"])
def test_an_overlap_is_found_inside_any_wrapper(tmp_path, wrap, side):
    train, test = rows(range(10)), rows([3])
    wrapped = train if side == "train" else test
    for row in wrapped:
        row["problem"] = wrap.format(row["problem"])
    source = Source(write(tmp_path, train), eval_path=write(tmp_path, test, "test.jsonl"))
    with pytest.warns(UserWarning, match="1 of 10 problems also stand in") as said:
        task = Maths(source)
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert "math-4 is math-eval-1" in str(said[0].message)
    assert len(task) == 9


def test_one_problem_in_eight_is_held_out_by_its_question(tmp_path):
    path = write(tmp_path, rows(range(400)))
    task = Maths(Source(path, hold_out=8))
    asked = evaluate.whole_task(task)
    train, test = ({p.prompt for p in t.batch(0, 0, len(t))} for t in (task, asked))
    assert not train & test and len(train | test) == 400 and 30 < len(test) < 70
    assert task.note.startswith(f"evaluating on {len(test)} held-out problems of {path} (one in 8")
    assert {p.prompt for p in task.problems} == train | test
    # Neither order nor more problems move a question to the other side; nor do marks around it.
    more = rows(range(600))[::-1]
    for row in more:
        row["problem"] = f"Question: {row['problem'].replace('figures', '$figures$')}\nAnswer:"
    again = evaluate.whole_task(Maths(Source(write(tmp_path, more, "more.jsonl"), hold_out=8)))
    keys = {copies.question_key(p.prompt) for p in again.batch(0, 0, len(again))}
    assert {copies.question_key(q) for q in test} <= keys
    assert not {copies.question_key(q) for q in train} & keys


def test_few_problems_are_not_split_and_the_config_says_how_many(tmp_path):
    c = config.base().task
    c.name, c.path, c.verify_workers = "math", write(tmp_path, rows(range(15))), 0
    task = tasks.make_task(c)
    assert task.held_out is task and len(task) == 15
    assert "which are trained on as well (fewer than 16" in task.note
    c.path = write(tmp_path, rows(range(16)))
    task = tasks.make_task(c)
    assert len(task) + len(task.held_out) == 16 and len(task.held_out) >= 1
    c.hold_out = 0
    assert len(tasks.make_task(c)) == 16


@pytest.mark.parametrize("size", [5, 7, 16, 31, 100])
def test_no_index_comes_twice_in_an_update_and_each_epoch_meets_all(size):
    for num in range(1, size + 1):
        drawn = []
        for update in range(3 * size // num + 3):
            batch = schedule.epoch_indices(size, 1, update, num)
            assert len(set(batch)) == num
            drawn += batch
        for start in range(0, len(drawn) - size + 1, size):
            assert sorted(drawn[start : start + size]) == [*range(size)]


def test_refills_ask_what_the_update_has_not_asked():
    for update in range(5):
        drawn = [i for a in range(6) for i in schedule.epoch_indices(50, 0, update, 8, a)]
        assert len(set(drawn)) == 48


def test_fields_by_name(tmp_path):
    made = [
        {"q": f"{i} + 1?", "meta": {"gold": i + 1}, "answer": "not the answer"} for i in range(3)
    ]
    path = write(tmp_path, made)
    task = Gsm8k(Source(path, fields="question=q, answer=meta.gold"))
    assert [(p.prompt, p.answer) for p in task.problems] == [
        ("0 + 1?", "1"),
        ("1 + 1?", "2"),
        ("2 + 1?", "3"),
    ]
    for text in ("question", "q=question", "question=a,question=b", "question="):
        with pytest.raises(ValueError, match="task.fields = "):
            Gsm8k(Source(path, fields=text))


def test_pass_rates_of_big_math(tmp_path):
    rates = (0.0, 0.5, None, 1.0)
    made = [r | {"llama8b_solve_rate": x} for r, x in zip(rows(range(4)), rates, strict=True)]
    task = Maths(Source(write(tmp_path, made), min_pass_rate=0.2, max_pass_rate=0.9))
    assert [p.id for p in task.problems] == ["math-2"]
