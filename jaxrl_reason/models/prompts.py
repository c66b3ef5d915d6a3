"""Prompts as token ids: plain text for base models, through the chat template for chat models.

Host side. Reads: nothing. Writes: nothing.

| model.prompt_format | a prompt is |
| --- | --- |
| plain | BOS where the tokenizer puts one, then the task's text |
| chat | the template around the task's text as the user's message, up to where the assistant begins |
| auto | chat where the tokenizer has a template, else plain |

A template writes all special tokens itself, BOS included, so that none is put before it. Special tokens spelt out in
the text, by a problem or by the policy whose failed answer stands in a repair prompt, are read as plain text: no text
can end its own message. Turns that a record gives before its question (`Problem.meta["messages"]`: a system text,
examples) become messages of their own in a chat, and paragraphs before the task's text in a plain prompt.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import ml_collections

from jaxrl_reason.models import chat_template, lengths
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.types import Problem

Turn = Mapping[str, str]  # {"role": ..., "content": ...}

# Stands for the n-th text while the template's own part is looked at; no template strips or changes it.
_PLACE = "\ue000text {}\ue000"
# What marks a spelt-out special token is a character of no meaning, one that the texts do not have.
_MARKS = range(0xF0000, 0xFFFFE)
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
    end: int | None = None  # token that ends a completion; None: EOS

    def policy(self, problem: Problem) -> tuple[int, ...]:
        """Prompt under which the policy solves the problem."""
        return self.encode(self.words("policy_prompt")(problem), before=_before(problem))

    def repair(self, problem: Problem, failed: str, anchor: str) -> tuple[int, ...]:
        """Prompt under which the policy repairs `failed`, shown `anchor`."""
        failed = self._fit(failed)
        anchor = anchor if anchor == problem.reference else self._fit(anchor)
        text = self.words("repair_prompt")(problem, failed, anchor)
        return self.encode(text, before=_before(problem))

    def encode(self, text: str, *, before: Sequence[Turn] = ()) -> tuple[int, ...]:
        """Ids of a prompt; in a chat, the task's cue for a base model ("Solution:") is left out at its end.

        Args:
          text: the user's message, or the end of a plain prompt.
          before: turns that come before it.
        """
        if not self.chat:
            return tuple(tokenizers.encode_prompt(self.tokenizer, plain_turns(before) + text))
        text = text.removesuffix(getattr(self.task, "answer_cue", "")).rstrip()
        turns = [*before, {"role": "user", "content": text}]
        return tuple(encode_chat(self.tokenizer, turns, enable_thinking=self.enable_thinking))

    def completion(self, text: str) -> tuple[int, ...]:
        """Ids of a completion that has finished: it ends as a turn of the chat does, or with EOS."""
        if self.end is None:
            return tuple(tokenizers.encode_completion(self.tokenizer, text))
        return (*tokenizers.encode_text(self.tokenizer, text), self.end)

    def words(self, name: str) -> Callable[..., str]:
        """The task's text of this name; in a chat, the one that it has for chats, if any."""
        own = getattr(self.task, name)
        return getattr(self.task, f"chat_{name}", own) if self.chat else own

    def _fit(self, text: str) -> str:
        """Text without its end where it takes more tokens read than written, as unusual token sequences may."""
        if not self.draft_tokens:
            return text
        limit = self.draft_tokens
        while len(ids := tokenizers.encode_text(self.tokenizer, text)) > self.draft_tokens:
            text = tokenizers.decode_completion(self.tokenizer, ids[:limit])
            limit -= 1
        return text


def _before(problem: Problem) -> Sequence[Turn]:
    return problem.meta.get("messages", ())


def plain_turns(turns: Sequence[Turn]) -> str:
    """Turns as text before a plain prompt: one paragraph each, named by who speaks; a system text without a name.

    Example:
      >>> plain_turns([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}])
      'Be brief.\\n\\nUser: 1 + 1?\\n\\n'
    """
    names = {"system": "", "developer": ""}
    return "".join(
        names.get(turn["role"], f"{turn['role'].capitalize()}: ") + turn["content"] + "\n\n"
        for turn in turns
    )


def make_prompts(
    task: Any, tokenizer: Any, model_config: ml_collections.ConfigDict, *, draft_tokens: int = 0
) -> Prompts:
    """Prompts as `config.model` asks.

    Args:
      task: whose texts. In a chat it may give others: `chat_policy_prompt` and `chat_repair_prompt`.
      tokenizer: of the policy.
      model_config: reads prompt_format and enable_thinking.
      draft_tokens: see `Prompts`.
    Returns:
      Prompts.
    Raises:
      ValueError: chat is asked of a tokenizer without a template, or of one whose template ends turns in a way that
        it has no token for; or enable_thinking = False of one without that switch.
    """
    chat = model_config.prompt_format == "chat"
    if model_config.prompt_format == "auto":
        chat = bool(tokenizer.chat_template)
    if chat and not tokenizer.chat_template:
        raise ValueError(
            "model.prompt_format = 'chat': the checkpoint has no chat template (neither chat_template.jinja nor"
            " chat_template in tokenizer_config.json); set it to plain, or take the instruct version"
        )
    if chat:
        check_closing(tokenizer, "set model.prompt_format to plain")
    thinking = model_config.enable_thinking
    asked = [{"role": "user", "content": ""}]
    if (
        chat
        and not thinking
        and _render(tokenizer, asked, True) == _render(tokenizer, asked, False)
    ):
        raise ValueError(
            "model.enable_thinking = False: the chat template has no such switch; set it to True"
        )
    end = tokenizers.end_of_turn(tokenizer) if chat else None
    return Prompts(task, tokenizer, chat, thinking, draft_tokens, end)


def check_closing(tokenizer: Any, otherwise: str) -> None:
    """Refuse a chat template whose turns end in a text that is no token: completions would run on into the next turn.

    Args:
      tokenizer: with a chat template.
      otherwise: what to do without a chat, for the message.
    Raises:
      ValueError: names the text and EOS.
    """
    text, end = tokenizers.closing(tokenizer)
    if end is None and text.strip():
        raise ValueError(
            f"chat template: ends a turn with {text.strip()!r}, which is no token of the tokenizer, and EOS is"
            f" {tokenizer.eos_token!r}, so that a completion would run on into the next turn; add it as a special token"
            f" (tokenizer.json), or {otherwise}"
        )


def encode_chat(
    tokenizer: Any, messages: str | Sequence[Turn], *, enable_thinking: bool = True
) -> list[int]:
    """Ids of a chat, up to where the assistant begins.

    Where no text spells out a special token, these are the ids of `tokenizer.apply_chat_template`. Where one does,
    only the template's own special tokens become ids.

    Args:
      tokenizer: with a chat template.
      messages: turns in order; a text is one message of the user.
      enable_thinking: handed to the template; Qwen3 writes an empty block of thoughts where it is False.
    Returns:
      Token ids, nothing before or behind what the template writes.
    Raises:
      ValueError: the template does not write every text in one piece, or does not render.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    places = [_PLACE.format(number) for number in range(len(messages))]
    frame = _render(tokenizer, _with(messages, places), enable_thinking)
    for turn, place in zip(messages, places, strict=True):
        if frame.count(place) != 1:
            raise ValueError(
                f"chat template: does not write the {turn['role']}'s message once, as it is"
            )
    ids = _encode(tokenizer, _render(tokenizer, messages, enable_thinking))
    if _special_ids(tokenizer, ids) == _special_ids(tokenizer, _encode(tokenizer, frame)):
        return ids
    return _encode_spelt(tokenizer, messages, enable_thinking)


def _encode_spelt(tokenizer: Any, messages: Sequence[Turn], enable_thinking: bool) -> list[int]:
    """Ids where a text spells out special tokens: these are marked while the template renders, then put back."""
    specials = sorted(_specials(tokenizer), key=len, reverse=True)
    texts = [turn["content"] for turn in messages]
    mark = next(c for c in map(chr, _MARKS) if not any(c in text for text in texts))
    any_special = "|".join(map(re.escape, specials))

    def marked(text: str) -> str:
        return re.sub(any_special, lambda m: f"{mark}{specials.index(m[0])}{mark}", text)

    def unmarked(text: str) -> str:
        return re.sub(f"{mark}(\\d+){mark}", lambda m: specials[int(m[1])], text)

    rendered = _render(tokenizer, _with(messages, [marked(t) for t in texts]), enable_thinking)
    ids: list[int] = []
    for part in re.split(f"((?:{any_special})+)", rendered):
        own = re.match(any_special, part)
        ids += (
            _encode(tokenizer, part) if own else tokenizers.encode_text(tokenizer, unmarked(part))
        )
    return ids


def _with(messages: Sequence[Turn], texts: Sequence[str]) -> list[Turn]:
    return [{**turn, "content": text} for turn, text in zip(messages, texts, strict=True)]


def _render(tokenizer: Any, messages: Sequence[Turn], enable_thinking: bool) -> str:
    try:
        return chat_template.render(
            tokenizer, messages, add_generation_prompt=True, enable_thinking=enable_thinking
        )
    except jinja2.TemplateError as error:
        roles = ", ".join(turn["role"] for turn in messages)
        raise ValueError(f"chat template: cannot write turns of {roles}: {error}") from error


def _encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)


def _special_ids(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    special = _specials(tokenizer).values()
    return [i for i in ids if i in special]


def _specials(tokenizer: Any) -> dict[str, int]:
    return {t.content: i for i, t in tokenizer.added_tokens_decoder.items() if t.special}


def _bytes_in_a_chat(prompts: Prompts, name: str, *texts: str) -> int:
    """Bytes, no fewer than tokens, of the words that a task has for chats alone; 0 where it has none."""
    if not prompts.chat or not hasattr(prompts.task, f"chat_{name}"):
        return 0
    (problem,) = prompts.task.batch(0, 0, 1)
    return len(prompts.words(name)(problem, *texts).encode())


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
        more += frame + _bytes_in_a_chat(prompts, "repair_prompt", "", "")
        own = frame + _bytes_in_a_chat(prompts, "policy_prompt")
        return task.prompt_tokens + own, task.repair_prompt_tokens + more
    policy, longest = lengths.longest_prompt(prompts, problems)
    # What a repair prompt has besides the question and the two texts is the same for every problem.
    frame = len(prompts.repair(longest, "", "")) + _BORDERS
    anchor = completion
    if references:
        texts = [p.reference for p in problems if p.reference is not None]
        sizes = lengths.longest_texts(prompts.tokenizer, texts).values()
        anchor = max(anchor, 1 + max(sizes, default=0))
    return policy, frame + completion + anchor + _BORDERS
