"""Tokens of many prompts at once, and tasks without the prompts that are too long.

Host side. Reads: nothing. Writes: nothing.

Texts are cut into tokens in blocks, which takes a fraction of the time that a chat template takes for one prompt; the
template's own tokens are the same for all. Where that decides nothing, within MARGIN of the limit, prompts are counted
as they will be asked.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from jaxrl_reason.types import Problem

MARGIN = 4  # tokens: a text may be cut otherwise than alone by one or two at each of its ends
_BLOCK = 1024  # texts


def text_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, without any that stand before or behind it."""
    counts: list[int] = []
    for start in range(0, len(texts), _BLOCK):
        block = list(texts[start : start + _BLOCK])
        found = tokenizer(block, add_special_tokens=False, split_special_tokens=True)
        counts += map(len, found["input_ids"])
    return counts


def prompt_tokens(prompts: Any, problems: Sequence[Problem], limit: int | None = None) -> list[int]:
    """Tokens of the policy prompts of problems.

    Args:
      prompts: a `models.prompts.Prompts`.
      problems: of its task.
      limit: counts within MARGIN of it are exact, others estimates; None: those near the largest are exact.
    Returns:
      Counts, BOS and the template's tokens included.
    """
    if not problems:
        return []
    words = prompts.words("policy_prompt")
    counts = text_tokens(prompts.tokenizer, [words(p) for p in problems])
    frame = len(prompts.policy(problems[0])) - counts[0]
    counts = [count + frame for count in counts]
    near = max(counts) if limit is None else limit
    for i, problem in enumerate(problems):
        # Turns before the question have tokens of their own around them.
        if abs(counts[i] - near) <= MARGIN or problem.meta.get("messages"):
            counts[i] = len(prompts.policy(problem))
    return counts


def fit(prompts: Any, limit: int) -> Any:
    """The prompts of the same task without the problems whose prompt is longer than the limit.

    One line on standard error says how many there are.

    Args:
      prompts: a `models.prompts.Prompts`; of a task that cannot leave problems out (`fitting`), they stay as they are.
      limit: tokens; `rollout.prompt_length`.
    Returns:
      Prompts.
    Raises:
      ValueError: no problem is left to train on or to evaluate on.
    """
    if not hasattr(prompts.task, "fitting"):
        return prompts
    seen: list[int] = []

    def fits(task: Any, problems: Sequence[Problem]) -> list[bool]:
        counts = prompt_tokens(dataclasses.replace(prompts, task=task), problems, limit)
        seen.extend(counts)
        return [count <= limit for count in counts]

    task = prompts.task.fitting(fits)
    long = sum(count > limit for count in seen)
    if not long:
        return prompts
    said = (
        f"{task.name}: {long} of {len(seen)} prompts are longer than rollout.prompt_length = {limit} tokens (the"
        f" longest has {max(seen)})"
    )
    whole = getattr(task, "whole", task)
    if not len(whole) or not len(whole.held_out):
        raise ValueError(f"{said}, so that none is left to ask; raise it")
    print(f"{said}, and are left out", file=sys.stderr)
    return dataclasses.replace(prompts, task=task)
