"""Fences: programs in every form of block that models write; none out of thoughts; time in proportion.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import time

import pytest

from jaxrl_reason.verify import fences

A = "for i in range(2):\n    print(i)\n"
BAD = "raise SystemExit\n"
BLOCK = f"```python\n{A}```"


def indented(text: str, by: str) -> str:
    return "".join(by + line + "\n" for line in text.splitlines())


RIGHT = {
    "plain": BLOCK,
    "left open in a thought": f"<think>\n```python\n{BAD}\nwait\n</think>\n{BLOCK}",
    "opened by the prompt": f"Try this:\n```python\n{BAD}```\n```\n</think>\n\n{BLOCK}",
    "on the line of the end": f"<think>x</think>{BLOCK}",
    "on the line of the end, with blanks": f"<think>x</think>  {BLOCK}",
    "a second thought": f"<think>a</think>b\n<think>\n```python\n{BAD}```\n</think>\n{BLOCK}",
    "a second thought with an open block": f"<think>a</think>b\n<think>\n```python\n{BAD}\n</think>\n{BLOCK}",
    "in a list": f"1. So:\n\n{indented(BLOCK, '   ')}",
    "deep in a list": f"1. So:\n  - then:\n{indented(BLOCK, ' ' * 6)}",
    "behind a list mark": "- " + indented(BLOCK, "  ").lstrip(),
    "behind a number": "1.  " + indented(BLOCK, "    ").lstrip(),
    "by a tab": indented(BLOCK, "\t"),
    "lines less indented than the fence": f"   ```python\n{A}   ```",
    "four backticks": f"````python\n{A}````",
    "four and five": f"````python\n{A}`````",
    "braces": f"```{{.python}}\n{A}```",
    "braces and more": f"```{{.python .numberLines startFrom=1}}\n{A}```",
    "braces without a point": f"```{{python}}\n{A}```",
    "an attribute": f'```python title="a.py"\n{A}```',
    "a file": f"```python:a.py\n{A}```",
    "capitals": f"```Python3\n{A}```",
    "tildes": f"~~~python\n{A}~~~",
    "tildes around backticks": f"~~~python\n{A}~~~\n",
    "a quotation": indented(BLOCK, "> "),
    "a quotation without blanks": indented(BLOCK, ">"),
    "a quotation in a quotation": indented(BLOCK, "> > "),
    "a quotation that ends": indented(BLOCK.removesuffix("```"), "> ") + "So it is.",
    "a stray closer": f"{BLOCK}\n```",
    "a stray closer behind a line": f"{BLOCK}\n\n```\n",
    "a stray closer and text": f"{BLOCK}\n```\nThis prints two numbers.",
    "a stray closer behind text": f"{BLOCK}\nDone.\n```\n",
    "a stray closer before": f"Here it is:\n```\nNow:\n{BLOCK}",
    "the end of a turn": f"{BLOCK}<|im_end|>",
    "the end of a turn and more": f"{BLOCK}<|im_end|>\n<|endoftext|>",
    "another end of a turn": f"{BLOCK} </s>",
    "text behind the closer": f"{BLOCK} This prints two numbers.",
    "a word behind the closer": f"{BLOCK}Done.\nReally.",
    "a closer behind the program": f"```python\n{A.rstrip()}```",
    "a closer behind the program, and the end": f"```python\n{A.rstrip()}```<|im_end|>",
    "windows": BLOCK.replace("\n", "\r\n"),
    "another language after it": f"{BLOCK}\n```text\n0\n1\n```",
    "unmarked after it": f"{BLOCK}\n```\n0\n1\n```",
    "unmarked": f"```\n{A}```",
}


@pytest.mark.parametrize("kind", RIGHT)
def test_the_program_is_found(kind):
    found = fences.extract_code(RIGHT[kind])
    assert found is not None and found.replace("\r", "").rstrip() == A.rstrip()


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{BLOCK}",
        f"<think>\n{BLOCK}\n</think>\nSo it is.",
        f"{BLOCK}\n</think>\nSo it is.",
        f"<think>a</think>\nb\n<think>\n{BLOCK}",
        f"<think>a</think>\nb\n<think>\n{BLOCK}\n</think>\nend",
        f"{BLOCK}\n```python\nprint(",
        f"```python\n{A}",
        f"```cpp\n{A}```",
        f"Use ```python {A.rstrip()} ``` here.",
        f"```python\n{A}~~~",
        f"````python\n{A}```",
        "print(1)",
        "",
        "```" * 1000,
    ],
)
def test_no_program_is_found(text):
    assert fences.extract_code(text) is None


def test_shorter_fences_and_other_signs_belong_to_the_program():
    program = 'text = """\n```\nx\n```\n"""\nprint(text)\n'
    assert fences.extract_code(f"````python\n{program}````") == program
    assert fences.extract_code(f"~~~python\n{program}~~~") == program


@pytest.mark.parametrize(
    "unit",
    ["```\n", "```python\n", "```python\nx\n```\n", "> ", "> ```\n", "</think>", "<think>\n", " ", "\t```\n", "1. ",
     "`", "~~~ `\n", "<|a|>", "```python\n</think>\n"],
)  # fmt: skip
def test_time_is_in_proportion(unit):
    def seconds(size):
        text = unit * (size // len(unit))
        start = time.process_time()
        fences.extract_code(text)
        fences.extract_code("```python\n" + text)
        return time.process_time() - start

    seconds(1000)
    assert seconds(200_000) < 2.0
