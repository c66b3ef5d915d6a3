"""Turns: every shape of a prompt, what is kept of it, and format instructions that are taken off.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

from __future__ import annotations

import json

import pytest

from jaxrl_reason.tasks import records, turns
from jaxrl_reason.tasks.maths import Maths

SYSTEM = {"role": "system", "content": "All numbers are in base 8."}
USER = {"role": "user", "content": "What is 17 + 1?"}
SHOTS = [USER, {"role": "assistant", "content": "It is \\boxed{20}."}]
LAST = {"role": "user", "content": "What is 27 + 1?"}


def share_gpt(messages):
    names = {"user": "human", "assistant": "gpt"}
    return [{"from": names.get(m["role"], m["role"]), "value": m["content"]} for m in messages]


def parts(text):
    return [{"type": "text", "text": text}]


@pytest.mark.parametrize("name", turns.QUESTIONS)
def test_a_question_under_every_name(name):
    assert turns.read({name: " What is 1 + 1? "}) == turns.Asked("What is 1 + 1?", (), None)
    assert turns.read({name: [SYSTEM, USER]}) == turns.Asked(USER["content"], (SYSTEM,), None)


@pytest.mark.parametrize(
    ("fields", "question", "before"),
    [
        ({"prompt": [SYSTEM, *SHOTS, LAST]}, LAST, (SYSTEM, *SHOTS)),
        ({"conversations": share_gpt([SYSTEM, *SHOTS, LAST])}, LAST, (SYSTEM, *SHOTS)),
        ({"conversations": share_gpt([USER]), "system": SYSTEM["content"]}, USER, (SYSTEM,)),
        ({"prompt": [{"role": "user", "content": parts(USER["content"])}]}, USER, ()),
        ({"prompt": [{"role": "developer", "content": "Base 8."}, USER]}, USER,
         ({"role": "developer", "content": "Base 8."},)),
        ({"prompt": [USER, {"role": "tool", "content": "20"}, LAST]}, LAST, (USER, {"role": "tool", "content": "20"})),
        ({"prompt": json.dumps([SYSTEM, USER])}, USER, (SYSTEM,)),
        ({"prompt": [{"role": "system", "content": ""}, USER]}, USER, ()),
        ({"prompt": [{"role": "system", "content": "Put your final answer within \\boxed{}."}, USER]}, USER, ()),
    ],
)  # fmt: skip
def test_turns_are_kept(fields, question, before):
    asked = turns.read(fields)
    assert (asked.text, asked.before, asked.reply) == (question["content"], before, None)


def test_the_reply_of_a_whole_conversation_is_the_solution(tmp_path):
    for fields in ({"messages": [SYSTEM, *SHOTS]}, {"conversations": share_gpt([SYSTEM, *SHOTS])}):
        assert turns.read(fields).reply == SHOTS[1]["content"]
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps(fields))
        (problem,) = Maths(path).problems
        assert (problem.answer, problem.meta["messages"]) == ("20", (SYSTEM,))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": SHOTS}, "last turn of prompt is not the user"),
        ({"prompt": [SYSTEM]}, "last turn"),
        ({"prompt": [{"role": "narrator", "content": "x"}, USER]}, "no role that is known: 'narrator'"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}, *parts("x")]}]}, "picture"),
        ({"prompt": [{"role": "user", "content": "<image>Find x."}]}, "picture"),
        ({"prompt": [USER, {"role": "assistant", "content": None, "tool_calls": [{}]}, LAST]}, "calls a tool"),
        ({"prompt": [{"role": "user", "content": 3}]}, "neither a text nor parts"),
        ({"prompt": 3}, "neither a text nor a list of turns"),
        ({"prompt": [], "question": None}, "no question in"),
        ({"prompt": [{"role": "user", "content": " "}]}, "the question is empty"),
    ],
)  # fmt: skip
def test_turns_that_cannot_be_kept_are_refused(fields, words):
    with pytest.raises(records.Unusable, match=words):
        turns.read(fields)


DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer:"
    " $Answer (without quotes) where $Answer is the answer to the problem.\n\n{}\n\nRemember to put your answer on its"
    ' own line after "Answer:".'
)
WRAPS = [
    DAPO,
    "{} Let's think step by step and output the final answer within \\boxed{{}}.",
    '{} Let\'s think step by step and output the final answer after "####".',
    "{}\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
    "Please reason step by step, and put your final answer within \\boxed{{}}.\n{}",
    "{}\n\nPresent the answer in LaTex format: \\boxed{{Your answer}}",
    "Question: {}\nAnswer:",
    "Problem: {}\n\nThink step by step.\n\nSolution:",
    "Answer the following question. {} Put your answer between <answer> and </answer> tags.",
    "**Problem:** {}\nReturn your final answer in \\boxed{{}}.",
    "{} Make sure to put the answer (and only answer) inside \\boxed{{}}.",
]
QUESTIONS = [
    "Find the sum of all $x$ with $x^2 = 4$.",
    "What is $\\boxed{2} + 3$?",
    "Let's say Tom has 3 apples. How many steps does he need?",
    "Compute the last line of the table: 1 + 1",
    "Give the answer as a fraction in \\boxed{}: what is 1/2 + 1/3?",
    "How many digits has 5? Put the answer, rounded to 2 digits, in \\boxed{}.",
    "Express your answer in simplest radical form. What is $\\sqrt{8}$?",
    "Solve for x: 2x = 8",
]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_format_instructions_are_taken_off_and_nothing_else(wrap, question):
    assert turns.without_format(wrap.format(question)) == question
    assert turns.without_format(question) == question


def test_long_texts_take_time_in_proportion():
    for text in (
        " " * 200_000 + "x",
        "Let's " * 50_000,
        "#" * 200_000,
        "\n" * 200_000,
        ". " * 100_000,
    ):
        turns.without_format("q" + text)
