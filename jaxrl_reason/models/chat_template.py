"""Chat templates: programs of a checkpoint, tried in a process that may be killed before they run in this one.

Host side. Reads: nothing. Writes: nothing.

The sandbox that `transformers` renders in keeps a template from everything but time and memory: three nested loops, or
one product of a text and a number, and the trainer stands still or is killed. So each template renders every shape of
conversation (the roles in order, and the options) once with limits; what is asked for later differs in its texts alone.
"""

from __future__ import annotations

import functools
import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

CPU_S = 2  # of processor time; templates take milliseconds
MEMORY_BYTES = 512 << 20
MOST_CHARACTERS = 1 << 20  # around texts that are short
_START_S = 120.0  # on the clock, on a busy machine
_TEXT = "What is {} plus 1?"
_WORKER = pathlib.Path(__file__).with_name("template_worker.py")


def render(tokenizer: Any, turns: Sequence[Mapping[str, str]], **options: Any) -> str:
    """Text of a chat, as `tokenizer.apply_chat_template` makes it.

    Args:
      tokenizer: with a chat template.
      turns: {"role", "content"} each.
      options: of the template, `add_generation_prompt` among them.
    Returns:
      The text.
    Raises:
      ValueError: the template takes too much time or memory, writes too much, or fails.
      jinja2.TemplateError: it refuses these turns.
    """
    template = tokenizer.get_chat_template()
    words = {name: text for name, text in tokenizer.special_tokens_map.items() if text is not None}
    check(
        template,
        tuple(turn["role"] for turn in turns),
        json.dumps(words | options, sort_keys=True, default=str),
    )
    try:
        return tokenizer.apply_chat_template(
            [dict(turn) for turn in turns], tokenize=False, **options
        )
    except jinja2.TemplateError:
        raise
    except Exception as error:  # the template is a program: it may end in any way
        said = f"{type(error).__name__}: {error}"[:200]
        raise ValueError(f"chat template: does not render ({said})") from error


@functools.lru_cache(maxsize=4096)
def check(template: str, roles: tuple[str, ...], variables: str) -> None:
    """Render a conversation with short texts in a process of its own.

    Args:
      template: in Jinja.
      roles: of the turns, in order.
      variables: of the template besides the turns, as JSON.
    Raises:
      ValueError: it takes more than CPU_S, MEMORY_BYTES or MOST_CHARACTERS.
    """
    turns = [{"role": role, "content": _TEXT.format(i)} for i, role in enumerate(roles)]
    given = {"messages": turns, "tools": None, "documents": None, "add_generation_prompt": False}
    asked = {
        "template": template,
        "variables": given | json.loads(variables),
        "limits": {"RLIMIT_AS": MEMORY_BYTES, "RLIMIT_CPU": CPU_S, "RLIMIT_CORE": 0},
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_WORKER)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=_START_S,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"chat template: takes more than {_START_S:g} s") from None
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise ValueError(f"chat template: takes more than {CPU_S} s of processor time")
    if done.returncode == 3:
        raise ValueError(f"chat template: takes more than {MEMORY_BYTES >> 20} MiB of memory")
    if done.returncode not in (0, 1) or done.stderr:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise ValueError(f"chat template: cannot be tried ({last[:200]})")
    if done.returncode == 0 and int(done.stdout) > MOST_CHARACTERS:
        raise ValueError(
            f"chat template: writes {int(done.stdout)} characters around {len(roles)} short texts;"
            f" at most {MOST_CHARACTERS}"
        )
