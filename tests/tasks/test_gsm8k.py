"""Gsm8k: reading, the order of problems, prompts, outcome.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

import collections
import json

import pytest

from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.tasks import base
from jaxrl_reason.tasks.gsm8k import Gsm8k

RECORDS = [
    {
        "question": "Ann has 3 pens and buys 4 more. How many has she?",
        "answer": "She has 3+4=<<3+4=7>>7 pens.\n#### 7",
    },
    {
        "question": "A car costs €900 and a van $<b>100</b> more. What does the van cost?",
        "answer": "900 + 100 = $<<900+100=1000>>1,000.\n#### 1,000",
    },
    {"question": "Halve -5.", "answer": "-5 / 2 = <<-5/2=-2.5>>-2.5\n#### -2.5"},
    {"question": "Count to five.", "answer": "#### 5"},
    {"question": "Two dozen?", "answer": "2 * 12 = <<2*12=24>>24\n\n#### 24"},
]


def _write(folder, lines):
    path = folder / "problems.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def task(tmp_path):
    path = _write(tmp_path, [json.dumps(r, ensure_ascii=False) for r in RECORDS])
    return Gsm8k(path, completion_tokens=64)


def test_reads_problems(task):
    problems = {p.id: p for p in task.batch(0, 0, 5)}
    assert len(task) == len(problems) == 5
    assert problems["gsm8k-1"].reference == "She has 3+4=7 pens.\n#### 7"
    assert problems["gsm8k-2"].reference == "900 + 100 = $1,000.\n#### 1,000"
    assert [problems[f"gsm8k-{i}"].answer for i in range(1, 6)] == ["7", "1,000", "-2.5", "5", "24"]
    assert problems["gsm8k-4"].reference is None  # an answer without a step shows nothing


def test_references_are_correct(task):
    problems = [p for p in task.batch(0, 0, 5) if p.reference]
    assert len(problems) == 4
    verdicts = task.verify(problems, [p.reference for p in problems])
    assert {v.reason for v in verdicts} == {"correct"}


def test_verify(task):
    (problem,) = [p for p in task.batch(0, 0, 5) if p.answer == "1,000"]
    texts = ["so #### 1000", "#### 1000.0", "#### 100", "#### 1000 dollars", "it is 1000"]
    reasons = [v.reason for v in task.verify([problem] * 5, texts)]
    assert reasons == ["correct", "correct", "wrong", "correct", "unparsable"]
    with pytest.raises(ValueError):
        task.verify([problem], texts)


def test_batch_is_pure(task, tmp_path):
    again = Gsm8k(tmp_path / "problems.jsonl", completion_tokens=64)
    for update in (3, 0, 7):
        assert task.batch(1, update, 3) == again.batch(1, update, 3)


@pytest.mark.parametrize("attempt", [0, 2])
def test_each_epoch_meets_every_problem_once(task, attempt):
    # 5 problems, 2 per update: 10 updates are 4 epochs, and update 2 crosses the first border.
    drawn = [p.id for update in range(10) for p in task.batch(4, update, 2, attempt)]
    epochs = [drawn[i : i + 5] for i in range(0, 20, 5)]
    assert all(len(set(epoch)) == 5 for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1  # shuffled anew


def test_seed_update_and_attempt_change_the_order(tmp_path):
    lines = [json.dumps({"question": f"{i}?", "answer": f"#### {i}"}) for i in range(40)]
    task = Gsm8k(_write(tmp_path, lines))
    draws = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]
    drawn = [tuple(p.id for p in task.batch(s, u, 10, a)) for s, u, a in draws]
    assert len(set(drawn)) == len(draws)


def test_a_batch_may_be_larger_than_the_file(task):
    counts = collections.Counter(p.id for p in task.batch(0, 0, 13))
    assert sorted(counts.values()) == [2, 2, 3, 3, 3]


def test_prompts_hold_their_parts_once_and_fit_the_budgets(task):
    tokenizer = tokenizers.make_tokenizer(task.tokenizer_name)
    failed, anchor = "f" * 64, "a" * 63  # out of budget, and with EOS
    lengths, repair_lengths = [], []
    for problem in task.batch(0, 0, 5):
        prompt = task.policy_prompt(problem)
        repair_prompt = task.repair_prompt(problem, failed, anchor)
        assert prompt.count(problem.prompt) == repair_prompt.count(problem.prompt) == 1
        assert repair_prompt.count(failed) == repair_prompt.count(anchor) == 1
        assert repair_prompt.index(failed) < repair_prompt.index(anchor)
        assert "####" in prompt and "####" in repair_prompt
        lengths.append(len(tokenizers.encode_prompt(tokenizer, prompt)))
        repair_lengths.append(len(tokenizers.encode_prompt(tokenizer, repair_prompt)))
    assert max(lengths) == task.prompt_tokens
    assert max(repair_lengths) == task.repair_prompt_tokens
    assert task.completion_tokens == 64


def test_braces_in_texts_are_kept(task):
    problem = task.batch(0, 0, 1)[0]
    assert r"\boxed{7} {failed}" in task.repair_prompt(problem, r"\boxed{7} {failed}", "{anchor}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2: Expecting property name"),
        ("[1, 2]", "line 2: a list; must be an object"),
    ],
)
def test_bad_lines_are_named_by_file_and_number(tmp_path, line, message):
    path = _write(tmp_path, [json.dumps(RECORDS[0]), line])
    with pytest.raises(ValueError, match=message) as error:
        Gsm8k(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "q"}', "line 2: no gold answer in answer, .*it has question"),
        ('{"question": " ", "answer": "#### 1"}', "line 2: no question in .*field question = ' '"),
        ('{"question": "q", "answer": "just 7"}', "line 2: the gold answer is no number: 'just 7'"),
        ('{"question": "q", "answer": "#### seven"}', "line 2: the gold answer is no number: 'seven'"),
        ('{"question": "q", "answer": null}', "line 2: no gold answer .*field answer = None"),
    ],
)  # fmt: skip
def test_bad_records_are_left_out_and_named(tmp_path, line, message):
    path = _write(tmp_path, [json.dumps(RECORDS[0]), line])
    with pytest.warns(UserWarning, match=f"{path}: 1 of 2 problems cannot be used:\n  {message}"):
        assert len(Gsm8k(path)) == 1
    with pytest.raises(ValueError, match="1 of 1 problems cannot be used"):
        Gsm8k(_write(tmp_path, [line]))


ASKED = 'Let\'s think step by step and output the final answer after "####".'


def test_numbers_alone_and_the_form_of_verl(tmp_path):
    worked = "2 + 2 = <<2+2=4>>4\n#### 4"
    rows = [
        {"question": "Two?", "answer": 2},
        {"question": "Three?", "answer": "3"},
        {
            "data_source": "openai/gsm8k",
            "prompt": [{"role": "user", "content": f"Four? {ASKED}"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "4"},
            "extra_info": {"split": "train", "index": 0, "answer": worked, "question": "Four?"},
        },
    ]  # fmt: skip
    task = Gsm8k(_write(tmp_path, map(json.dumps, rows)))
    found = [(p.prompt, p.answer, p.reference) for p in task.problems]
    assert found == [
        ("Two?", "2", None),
        ("Three?", "3", None),
        ("Four?", "4", "2 + 2 = 4\n#### 4"),
    ]


def test_bad_bytes_are_named_by_file_and_number(tmp_path):
    path = tmp_path / "latin1.jsonl"
    path.write_bytes(b'{"question": "caf\xe9", "answer": "#### 1"}\n')
    with pytest.raises(ValueError, match="latin1.jsonl, line 1: .*utf-8"):
        Gsm8k(path)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.jsonl: no such file; task.path"):
        Gsm8k(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="holds no problem"):
        Gsm8k(_write(tmp_path, ["", ""]))


def test_offers_task_and_no_oracle(task):
    assert isinstance(task, base.Task)
    assert not isinstance(task, base.StepOracle | base.Demonstrator)
