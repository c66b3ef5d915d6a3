"""Tokens of many prompts at once, and tasks without the prompts that are too long.

Host side. Reads: nothing. Writes: nothing.

A text has no more tokens than bytes, so that most prompts need no count. The others are cut into tokens in blocks,
which takes a fraction of the time that a chat template takes for one prompt; the template's own tokens are the same for
all. Where that decides nothing, within MARGIN of the limit, prompts are counted as they will be asked.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from jaxrl_reason.types import Problem

MARGIN = 4  # tokens: a text may be cut otherwise than alone by one or two at each of its ends
_BLOCK = 1024  # texts
_EXACT = 512  # prompts that are counted as they will be asked, where only the longest matters


def text_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, without any that stand before or behind it."""
    counts: list[int] = []
    for start in range(0, len(texts), _BLOCK):
        block = list(texts[start : start + _BLOCK])
        found = tokenizer(block, add_special_tokens=False, split_special_tokens=True)
        counts += map(len, found["input_ids"])
    return counts


def longest_texts(tokenizer: Any, texts: Sequence[str]) -> dict[int, int]:
    """{which text: its tokens} of all that come within MARGIN of the most, and perhaps of others.

    A text has no more tokens than bytes: the shorter ones are not looked at.
    """
    sizes = [len(text.encode()) for text in texts]
    order = sorted(range(len(texts)), key=sizes.__getitem__, reverse=True)
    found: dict[int, int] = {}
    for start in range(0, len(order), _BLOCK):
        least = max(found.values(), default=0) - MARGIN
        block = [i for i in order[start : start + _BLOCK] if sizes[i] >= least]
        if not block:
            break
        found |= zip(block, text_tokens(tokenizer, [texts[i] for i in block]), strict=True)
    return found


def longest_prompt(prompts: Any, problems: Sequence[Problem]) -> tuple[int, Problem]:
    """Tokens of the longest policy prompt, BOS and the template's tokens included, and its problem.

    Args:
      prompts: a `models.prompts.Prompts`.
      problems: of its task, at least one.
    Returns:
      (tokens, problem); MARGIN more where too many are of nearly one length to be counted as they will be asked.
    """
    words = prompts.words("policy_prompt")
    found = longest_texts(prompts.tokenizer, [words(problem) for problem in problems])
    most = max(found.values())
    near = [problems[i] for i, count in found.items() if count >= most - MARGIN]
    # Turns before the question have tokens of their own around them.
    some = [*near[:_EXACT], *(p for p in problems if p.meta.get("messages"))]
    counts = [len(prompts.policy(problem)) for problem in some]
    best = max(range(len(some)), key=counts.__getitem__)
    return counts[best] + MARGIN * (len(near) > _EXACT), some[best]


def prompt_tokens(prompts: Any, problems: Sequence[Problem], limit: int) -> list[int]:
    """Tokens of the policy prompts of problems: exact near the limit, else on the right side of it.

    Args:
      prompts: a `models.prompts.Prompts`.
      problems: of its task.
      limit: tokens.
    Returns:
      Counts, BOS and the template's tokens included.
    """
    if not problems:
        return []
    words = prompts.words("policy_prompt")
    texts = [words(problem) for problem in problems]
    tokenizer = prompts.tokenizer
    frame = len(prompts.policy(problems[0])) - text_tokens(tokenizer, texts[:1])[0]
    counts = [len(text.encode()) + frame for text in texts]
    near = [i for i, count in enumerate(counts) if count > limit - MARGIN]
    for i, count in zip(near, text_tokens(tokenizer, [texts[i] for i in near]), strict=True):
        counts[i] = count + frame
    longest = max(range(len(counts)), key=counts.__getitem__)
    for i, problem in enumerate(problems):
        doubtful = abs(counts[i] - limit) <= MARGIN or i == longest
        if doubtful or problem.meta.get("messages"):
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
