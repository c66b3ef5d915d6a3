"""Rules of steps on texts, each against cuts made by hand.

Host side. Reads: nothing. Writes: nothing.
"""

import time

import pytest

from jaxrl_reason.verify import step_rules

CODE = """We add.
```python
import sys

# read
a = input()
if a:
    # say
    print(
        a)
```
"""


def cut(text: str, rule: str) -> list[str]:
    ends = [*step_rules.ends(text, rule), len(text)]
    return [text[i:j] for i, j in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(
    ("rule", "steps"),
    [
        ("blank_line", ["a\n b\n\n", "c\n \n\n", "d"]),
        ("blank_line", ["\n\na\n\n", "b"]),
        ("blank_line", ["a\r\n\r\n", "b"]),
        ("newline", ["a\n", "  b\n\n \n", "c"]),
        ("newline", ["\na\n", "b\n", ""]),
        ("step_k", ["Let x.\n", "Step 1: a\nb\n", "**Step 2** c, see Step 1\n", "### step 3. d"]),
        ("step_k", ["\n Step 1: a\n", "Step 2: b"]),
        ("step_k", ["Stepwise\nsteps 1"]),
        ("sentence", ["It is 3.5.", ' She said "4."', "  Is it 5?", " Yes!"]),
        ("sentence", ["We use Eq. 3, e.g. twice.", " So 4. "]),
        ("sentence", ["Then:\n1. add\n2. halve.\n", "So $x$.\n \n", "Now 3\n\n", "Done"]),
        ("sentence", ["第一。", "第二。", ""]),
        ("code_line", ["We add.\n", "```python\nimport sys\n", "\n# read\na = input()\n", "if a:\n",
                       "    # say\n    print(\n", "        a)\n```\n"]),
        (" ; ", ["1 ; ", "2 ; ", "3"]),
        (".", ["1.", "2"]),
    ],
)  # fmt: skip
def test_cuts_by_hand(rule, steps):
    text = CODE if rule == "code_line" else "".join(steps)
    assert cut(text, rule) == steps
    assert "".join(cut(text, rule)) == text


def test_texts_without_steps_and_bad_rules():
    for rule in step_rules.NAMES:
        assert step_rules.ends("", rule) == [] == step_rules.ends(" \n", rule)
        assert cut("one", rule) == ["one"]
    with pytest.raises(ValueError, match="tokens:4.*a text has none"):
        step_rules.ends("a", "tokens:4")
    with pytest.raises(ValueError, match="must not be empty"):
        step_rules.ends("a", "")


@pytest.mark.parametrize(
    "piece", ["\n", "\n \t", ".", "!)", ". ", "Step 1\n", "#", "```\n", " ", "1.\n"]
)
def test_hostile_texts_take_no_time(piece):
    start = time.process_time()
    for rule in step_rules.NAMES:
        step_rules.ends(piece * 50_000 + "x", rule)
    assert time.process_time() - start < 5
