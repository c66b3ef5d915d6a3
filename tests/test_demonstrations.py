"""Demonstrations: every form of a row, references of a data set, rows and prompts that do not fit.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

from __future__ import annotations

import json
import types

import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import demonstrations, parts, tasks
from jaxrl_reason.models import lengths
from jaxrl_reason.models import tokenizer as tokenizers
from tests.models import chat
from tests.models.test_prompts import adopt

QUESTION, STEPS = "What is 2 + 3?", "2 + 3 = 5"
GSM8K = {"question": QUESTION, "answer": f"{STEPS}\n#### 5"}


def make_run(tmp_path, rows, *, shown=(), template=None, **changes):
    """What `demonstrations.read` and its callers look at, without a network."""
    for name, part in (("train", rows), ("sft", shown)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    config = config_lib.base()
    settings = {
        "task.name": "gsm8k",
        "task.path": f"{tmp_path}/train.jsonl",
        "task.verify_workers": 0,
    }
    if shown:
        settings["sft.path"] = f"{tmp_path}/sft.jsonl"
    config.update_from_flattened_dict(settings | changes)
    task = tasks.make_task(config.task)
    tokenizer = tokenizers.make_tokenizer(task.tokenizer_name)
    if template:
        words = [QUESTION, "User Assistant Base 8 system", *(json.dumps(r) for r in rows)]
        tokenizer = adopt(chat.make_tokenizer(words, 400, template))
    made, shapes = parts.make_prompts(config, task, tokenizer)
    return types.SimpleNamespace(config=config, task=made.task, prompts=made, shapes=shapes)


def read(run):
    return demonstrations.read(run.config, run.prompts, run.shapes)


def texts(run):
    tokenizer = run.prompts.tokenizer
    return [
        (tokenizer.decode(d.prompt), tokenizers.decode_completion(tokenizer, d.completion))
        for d in read(run)
    ]


def test_references_of_the_data_set_are_demonstrations_of_the_task(tmp_path):
    rows = [GSM8K, {"question": "An answer alone?", "answer": "#### 7"}]
    run = make_run(tmp_path, rows)
    (problem, _) = run.task.problems
    bos = run.prompts.tokenizer.bos_token
    assert texts(run) == [(bos + run.task.policy_prompt(problem), f"{STEPS}\n#### 5")]
    assert run.task.verify([problem], [texts(run)[0][1]])[0].reason == "correct"


def test_evaluation_is_not_taught(tmp_path):
    rows = [
        {"question": f"What is {i} + 1?", "answer": f"{i} + 1 = {i + 1}\n#### {i + 1}"}
        for i in range(80)
    ]
    run = make_run(tmp_path, rows)
    asked = {run.task.policy_prompt(p) for p in run.task.held_out.problems}
    shown = [prompt.removeprefix(run.prompts.tokenizer.bos_token) for prompt, _ in texts(run)]
    assert len(shown) + len(asked) == 80 and asked and not asked & set(shown)


TURNS = [{"role": "system", "content": "Base 8."}, {"role": "user", "content": "7 + 1?"}]
REPLY = {"role": "assistant", "content": "It is 10."}


@pytest.mark.parametrize(
    "row",
    [
        GSM8K,
        {"question": QUESTION, "solution": f"{STEPS}\n#### 5"},
        {"question": QUESTION, "completion": f"{STEPS}\n#### 5"},
        {"messages": [{"role": "user", "content": QUESTION}], "completion": f"{STEPS}\n#### 5"},
    ],
)
def test_a_question_is_put_as_the_task_puts_it(tmp_path, row):
    run = make_run(tmp_path, [GSM8K], shown=[row])
    (shown,) = texts(run)
    if "messages" not in row:
        (problem,) = run.task.problems
        assert shown[0].endswith(run.task.policy_prompt(problem))
    assert QUESTION in shown[0] and shown[1] == f"{STEPS}\n#### 5"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*TURNS, REPLY]},
        {"prompt": TURNS, "completion": [REPLY]},
        {"prompt": TURNS, "completion": REPLY["content"]},
        {"conversations": [{"from": "system", "value": "Base 8."}, {"from": "human", "value": "7 + 1?"},
                           {"from": "gpt", "value": "It is 10."}]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("template", [None, chat.TEMPLATE])
def test_turns_are_put_as_they_are(tmp_path, row, template):
    run = make_run(
        tmp_path, [GSM8K], shown=[row], template=template, **{"rollout.prompt_length": 300}
    )
    ((prompt, completion),) = texts(run)
    assert completion == "It is 10."
    if template:
        assert prompt == (
            "<|im_start|>system\nBase 8.<|im_end|>\n<|im_start|>user\n7 + 1?<|im_end|>\n<|im_start|>assistant\n"
        )
    else:
        assert prompt.endswith("Base 8.\n\n7 + 1?")


def test_rows_that_cannot_be_used_are_left_out_and_named(tmp_path):
    good = {"prompt": "a", "completion": "b"}
    bad = [
        {"prompt": "a"},
        {"prompt": "a", "completion": " "},
        {"messages": TURNS},
        {"completion": "b"},
    ]
    run = make_run(tmp_path, [GSM8K], shown=[good, *bad])
    with pytest.warns(UserWarning, match="sft.jsonl: 4 of 5 rows cannot be used:\n  line 2"):
        assert texts(run) == [(run.prompts.tokenizer.bos_token + "a", "b")]


def test_rows_over_the_budget_are_left_out_at_the_start(tmp_path, capsys):
    limits = {"rollout.prompt_length": 200, "rollout.max_new_tokens": 8}
    long = [{"prompt": "a", "completion": "b" * 8}, {"prompt": "a" * 200, "completion": "b"}]
    fits = [{"prompt": "a", "completion": "b" * 7}, {"prompt": "a" * 199, "completion": "b"}]
    run = make_run(tmp_path, [GSM8K], shown=[*long, *fits], **limits)
    assert [c for _, c in texts(run)] == ["b" * 7, "b"]
    said = capsys.readouterr().err
    assert "2 of 4 rows do not fit 200 tokens of prompt" in said and said.count("\n") == 1
    assert "the longest have 201 and 9" in said
    run = make_run(tmp_path, [GSM8K], shown=long, **limits)
    with pytest.raises(ValueError, match="2 of 2 rows do not fit .*none is left; raise them"):
        read(run)


@pytest.mark.parametrize("template", [None, chat.TEMPLATE])
def test_prompts_over_the_limit_are_left_out_at_the_start(tmp_path, capsys, template):
    rows = [{"question": "word " * n + "?", "answer": f"#### {n}"} for n in range(1, 120)]
    whole = make_run(tmp_path, rows, template=template)
    sizes = {p.id: len(whole.prompts.policy(p)) for p in whole.task.problems}
    limit = sorted(sizes.values())[60]
    run = make_run(tmp_path, rows, template=template, **{"rollout.prompt_length": limit})
    kept = {name for name, size in sizes.items() if size <= limit}
    assert {p.id for p in run.task.problems} == kept and 0 < len(kept) < len(sizes)
    assert run.task.held_out is not run.task
    said = capsys.readouterr().err
    assert (
        f"{len(sizes) - len(kept)} of 119 prompts are longer than rollout.prompt_length = {limit}"
        in said
    )
    assert f"the longest has {max(sizes.values())}" in said and said.count("\n") == 1
    for update in range(20):
        for problem in run.task.batch(0, update, 8):
            assert len(run.prompts.policy(problem)) <= limit
    with pytest.raises(ValueError, match="none is left to ask"):
        make_run(tmp_path, rows, template=template, **{"rollout.prompt_length": 4})


def test_steps_over_the_limit_are_not_asked(tmp_path, capsys):
    solution = "\n".join(f"{i} + 1 = {i + 1}" for i in range(40))
    rows = [{"question": f"{i}?", "answer": f"{solution}\n#### {i}"} for i in range(4)]
    run = make_run(tmp_path, rows, **{"task.steps": True, "rollout.prompt_length": 300})
    asked = [p for update in range(40) for p in run.task.batch(0, update, 4)]
    assert 200 < max(len(run.prompts.policy(p)) for p in asked) <= 300
    assert "prompts are longer than rollout.prompt_length = 300" in capsys.readouterr().err


def test_counts_are_those_of_the_prompts(tmp_path):
    rows = [{"question": "word " * (n % 50) + f"{n}?", "answer": f"#### {n}"} for n in range(1, 80)]
    for template in (None, chat.TEMPLATE):
        run = make_run(tmp_path, rows, template=template)
        exact = [len(run.prompts.policy(p)) for p in run.task.problems]
        most, longest = lengths.longest_prompt(run.prompts, run.task.problems)
        assert most == max(exact) == len(run.prompts.policy(longest))
        for limit in range(min(exact) - 1, max(exact) + 2, 7):
            found = lengths.prompt_tokens(run.prompts, run.task.problems, limit)
            assert [n <= limit for n in found] == [n <= limit for n in exact]


@pytest.mark.parametrize(
    "name", ["arithmetic", "countdown", "game24", "knights", "gsm8k", "math", "code"]
)
def test_chat_models_are_asked_in_words_and_without_a_cue(tmp_path, name):
    rows = [GSM8K | {"tests": [{"input": "", "output": "5"}]}]
    config = config_lib.base()
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]))
    config.task.name, config.task.path = name, f"{tmp_path}/a.jsonl"
    config.task.verify_workers, config.task.sandbox.require_isolation = 0, False
    task = tasks.make_task(config.task)
    tokenizer = adopt(
        chat.make_tokenizer([task.policy_prompt(p) for p in task.batch(0, 0, 3)], 400)
    )
    made, shapes = parts.make_prompts(config, task, tokenizer)
    (problem,) = task.batch(0, 0, 1)
    message = tokenizer.decode(made.policy(problem))
    repair = tokenizer.decode(made.repair(problem, "a draft", "a solution"))
    for text in (message, repair):
        assert "Solution:" not in text and not text.startswith("solve")
        assert len(text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0].split()) > 20
    assert "a draft" in repair and "a solution" in repair
    assert len(made.policy(problem)) <= shapes.prompt
    assert len(made.repair(problem, "", "")) <= shapes.repair_prompt
