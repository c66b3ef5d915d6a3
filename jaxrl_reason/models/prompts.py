"""Prompts of a task as token ids: plain text for base models, through the chat template for chat models.

Host side. Reads: nothing. Writes: nothing.

| model.prompt_format | a prompt is |
| --- | --- |
| plain | BOS where the tokenizer puts one, then the task's text |
| chat | the template around the task's text as the user's message, up to where the assistant begins |
| auto | chat where the tokenizer has a template, else plain |

A template writes all special tokens itself, BOS included, so that none is put before it. Special tokens spelt out in
the text, by a problem or by the policy whose failed answer stands in a repair prompt, are read as plain text: no text
can end its own message.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_collections

from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.types import Problem

# Stands for the text while the template's own part is looked at; no template strips or changes it.
_PLACE = "\ue000text\ue000"
# Texts joined by a template may be cut into tokens otherwise than alone, by a token or two at each border.
_BORDERS = 16


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The prompts of one task for one tokenizer."""

    task: Any
    tokenizer: Any
    chat: bool
    enable_thinking: bool = True
    # Most tokens of a text of the policy's own inside a repair prompt; 0: no limit.
    draft_tokens: int = 0

    def policy(self, problem: Problem) -> tuple[int, ...]:
        """Prompt under which the policy solves the problem."""
        return self.encode(self.task.policy_prompt(problem))

    def repair(self, problem: Problem, failed: str, anchor: str) -> tuple[int, ...]:
        """Prompt under which the policy repairs `failed`, shown `anchor`."""
        failed = self._fit(failed)
        anchor = anchor if anchor == problem.reference else self._fit(anchor)
        return self.encode(self.task.repair_prompt(problem, failed, anchor))

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a prompt; in a chat, the task's cue for a base model ("Solution:") is left out at its end."""
        if not self.chat:
            return tuple(tokenizers.encode_prompt(self.tokenizer, text))
        text = text.removesuffix(getattr(self.task, "answer_cue", "")).rstrip()
        return tuple(encode_chat(self.tokenizer, text, enable_thinking=self.enable_thinking))

    def _fit(self, text: str) -> str:
        """Text without its end where it takes more tokens read than written, as unusual token sequences may."""
        if not self.draft_tokens:
            return text
        limit = self.draft_tokens
        while len(ids := tokenizers.encode_text(self.tokenizer, text)) > self.draft_tokens:
            text = tokenizers.decode_completion(self.tokenizer, ids[:limit])
            limit -= 1
        return text


def make_prompts(
    task: Any, tokenizer: Any, model_config: ml_collections.ConfigDict, *, draft_tokens: int = 0
) -> Prompts:
    """Prompts as `config.model` asks.

    Args:
      task: whose texts.
      tokenizer: of the policy.
      model_config: reads prompt_format and enable_thinking.
      draft_tokens: see `Prompts`.
    Returns:
      Prompts.
    Raises:
      ValueError: chat is asked of a tokenizer without a template, or enable_thinking = False of one without that
        switch.
    """
    chat = model_config.prompt_format == "chat"
    if model_config.prompt_format == "auto":
        chat = bool(tokenizer.chat_template)
    if chat and not tokenizer.chat_template:
        raise ValueError(
            "model.prompt_format = 'chat': the checkpoint has no chat template (neither chat_template.jinja nor"
            " chat_template in tokenizer_config.json); set it to plain, or take the instruct version"
        )
    thinking = model_config.enable_thinking
    if chat and not thinking and _render(tokenizer, "", True) == _render(tokenizer, "", False):
        raise ValueError(
            "model.enable_thinking = False: the chat template has no such switch; set it to True"
        )
    return Prompts(task, tokenizer, chat, thinking, draft_tokens)


def encode_chat(tokenizer: Any, text: str, *, enable_thinking: bool = True) -> list[int]:
    """Ids of a chat with one message of the user, up to where the assistant begins.

    Where the text spells out no special token, these are the ids of `tokenizer.apply_chat_template`. Where it does,
    only the template's own special tokens become ids.

    Args:
      tokenizer: with a chat template.
      text: of the message.
      enable_thinking: handed to the template; Qwen3 writes an empty block of thoughts where it is False.
    Returns:
      Token ids, nothing before or behind what the template writes.
    Raises:
      ValueError: the template does not write the text in one piece, or does not render.
    """
    frame = _render(tokenizer, _PLACE, enable_thinking)
    before, place, behind = frame.partition(_PLACE)
    if not place or _PLACE in behind:
        raise ValueError("chat template: does not write the user's message once, as it is")
    rendered = _render(tokenizer, text, enable_thinking)
    own = _special_ids(tokenizer, _encode(tokenizer, frame))
    ids = _encode(tokenizer, rendered)
    if _special_ids(tokenizer, ids) == own:
        return ids
    if not (rendered.startswith(before) and rendered.endswith(behind)):
        raise ValueError("chat template: what it writes around a message depends on the message")
    message = rendered[len(before) : len(rendered) - len(behind)]
    # What stands between the special tokens around the message is cut into tokens together with it.
    head, tail = _last_special(tokenizer, before), _first_special(tokenizer, behind)
    plain = before[head:] + message + behind[:tail]
    return [
        *_encode(tokenizer, before[:head]),
        *tokenizers.encode_text(tokenizer, plain),
        *_encode(tokenizer, behind[tail:]),
    ]


def _render(tokenizer: Any, text: str, enable_thinking: bool) -> str:
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        add_generation_prompt=True,
        tokenize=False,
        enable_thinking=enable_thinking,
    )


def _encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)


def _special_ids(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    special = _specials(tokenizer).values()
    return [i for i in ids if i in special]


def _specials(tokenizer: Any) -> dict[str, int]:
    return {t.content: i for i, t in tokenizer.added_tokens_decoder.items() if t.special}


def _last_special(tokenizer: Any, text: str) -> int:
    """Where the text behind its last special token begins."""
    return max((text.rfind(s) + len(s) for s in _specials(tokenizer) if s in text), default=0)


def _first_special(tokenizer: Any, text: str) -> int:
    return min((text.find(s) for s in _specials(tokenizer) if s in text), default=len(text))


def prompt_widths(prompts: Prompts, completion: int, *, references: bool) -> tuple[int, int]:
    """Most tokens of a policy prompt and of a repair prompt.

    Args:
      prompts: of a task. For a checkpoint's tokenizer every problem is encoded where the task has a list of them,
        `problems`; else the task's own counts are taken, and the template's tokens added.
      completion: most tokens of a completion.
      references: reference solutions may be anchors.
    Returns:
      (policy, repair), tokens.
    """
    task = prompts.task
    problems = getattr(task, "problems", None)
    if problems is None or tokenizers.is_own(prompts.tokenizer):
        frame = len(prompts.encode("")) if prompts.chat else 0
        # Failed and anchor completions stand in a repair prompt; both follow the run's completion budget.
        more = 2 * max(completion - task.completion_tokens, 0)
        return task.prompt_tokens + frame, task.repair_prompt_tokens + frame + more
    lengths = [len(prompts.policy(p)) for p in problems]
    policy = max(lengths)
    longest = problems[lengths.index(policy)]
    # What a repair prompt has besides the question and the two texts is the same for every problem.
    frame = len(prompts.repair(longest, "", "")) + _BORDERS
    anchor = completion
    if references:
        texts = [p.reference for p in problems if p.reference is not None]
        sizes = [len(tokenizers.encode_completion(prompts.tokenizer, text)) for text in texts]
        anchor = max([anchor, *sizes])
    return policy, frame + completion + anchor + _BORDERS
