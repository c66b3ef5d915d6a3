"""Sampling and scoring for notebooks: lists of texts, chats or token ids in, arrays and texts out.

Host side; drives the device. Reads: nothing. Writes: nothing.

The training loop goes through `batching.Engine`, which fixes its shapes once. Here shapes follow
the input; prompt widths are rounded up, so that a word more does not compile again.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import prompts as prompts_lib
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.rollout import batching, sampler
from jaxrl_reason.types import Rollout

_PROMPT_COLUMNS = 16  # prompt widths are multiples of this

_make_sampler = functools.lru_cache(maxsize=16)(sampler.make_sampler)
_make_scorer: Callable = functools.lru_cache(maxsize=16)(sampler.make_scorer)


def sample(
    policy: policies.Policy,
    prompts: Sequence[Any],
    *,
    num_samples: int = 1,
    max_new_tokens: int = 64,
    temperature: float | int = 1.0,
    seed: int = 0,
    chat: bool | str = "auto",
) -> tuple[Rollout, list[str]]:
    """Completions of prompts. They end with EOS or, after a chat, with the end of the assistant's turn.

    Args:
      policy: from `load_policy`.
      prompts: N prompts of one kind. Texts: each is the user's message where `chat` says so, else what the model goes
        on from. Chats: lists of {"role": ..., "content": ...}, put through the checkpoint's chat template up to where
        the assistant begins. Token ids: as they are. Only ids and the template make special tokens: those that a text
        or a message spells out are plain text, so that no prompt can end its own turn.
      num_samples: G, completions per prompt, >= 1.
      max_new_tokens: C, most tokens of a completion, >= 1.
      temperature: of sampling, >= 0; 0 takes the most likely token.
      seed: same seed and arguments, same completions.
      chat: of texts. "auto": through the chat template where the checkpoint has one; True: a checkpoint without one is
        refused; False: never.
    Returns:
      (Rollout of B = N * G rows, B texts); row n * G + j is sample j of prompt n.
    Raises:
      ValueError: no prompts, or of several kinds; a chat without a template, or turns that it cannot write; a negative
        temperature, or sizes below 1.
    Example:
      >>> policy = policies.load_policy("tiny")
      >>> rollout, texts = sample(policy, ["solve 3 8 :"], num_samples=2, max_new_tokens=4)
      >>> rollout.tokens.shape, len(texts)
      ((2, 20), 2)
    """
    if temperature < 0:
        raise ValueError(f"temperature = {temperature}: must be >= 0; 0 takes the likeliest token")
    tokenizer = policy.tokenizer
    sequences = _encode(policy, prompts, chat)
    width = -(-max(map(len, sequences)) // _PROMPT_COLUMNS) * _PROMPT_COLUMNS
    tokens, mask = batching.pad_left(
        sequences, width=width, rows=len(prompts), pad_id=tokenizer.pad_token_id
    )
    run = _make_sampler(
        policy.config,
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        eos_id=tokenizers.stop_ids(tokenizer),
        pad_id=tokenizer.pad_token_id,
        greedy=temperature == 0,
    )
    budget = np.full(len(prompts), max_new_tokens, np.int32)
    rollout = run(policy.params, tokens, mask, budget, temperature, jax.random.key(seed))
    written, sampled = jax.device_get((rollout.tokens, rollout.completion_mask))
    texts = [
        tokenizers.decode_completion(tokenizer, row[chosen])
        for row, chosen in zip(written, sampled, strict=True)
    ]
    return rollout, texts


def _encode(policy: policies.Policy, prompts: Sequence[Any], chat: bool | str) -> list[list[int]]:
    """Ids of prompts of one kind."""
    if isinstance(prompts, (str, bytes, Mapping)) or len(prompts) == 0:
        raise ValueError(
            f"prompts = {prompts!r}: must be a list of at least one string, chat or list of ids"
        )
    if chat not in ("auto", True, False):
        raise ValueError(f"chat = {chat!r}: must be 'auto', True or False")
    kinds = [_kind(number, prompt) for number, prompt in enumerate(prompts)]
    other = next((i for i, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is not None:
        raise ValueError(
            f"prompts: the first is {kinds[0]}, number {other} is {kinds[other]}; give prompts of one kind"
        )
    tokenizer, kind = policy.tokenizer, kinds[0]
    if kind == _IDS:
        return [_checked_ids(i, ids, policy.config.vocab_size) for i, ids in enumerate(prompts)]
    if kind == _CHAT and chat is False:
        raise ValueError("chat = False: messages need the chat template; give texts or token ids")
    through = kind == _CHAT or chat is True or (chat == "auto" and bool(tokenizer.chat_template))
    if not through:
        return [
            _not_empty(i, tokenizers.encode_prompt(tokenizer, x)) for i, x in enumerate(prompts)
        ]
    if not tokenizer.chat_template:
        raise ValueError(
            "the checkpoint has no chat template (neither chat_template.jinja nor chat_template in"
            " tokenizer_config.json); give texts with chat=False or token ids, or load the instruct version"
        )
    prompts_lib.check_closing(tokenizer, "sample with chat=False")
    return [prompts_lib.encode_chat(tokenizer, prompt) for prompt in prompts]


_TEXT, _CHAT, _IDS = "a text", "a list of messages", "a list of token ids"


def _kind(number: int, prompt: Any) -> str:
    if isinstance(prompt, str):
        return _TEXT
    if getattr(prompt, "ndim", None) == 1:
        prompt = np.asarray(prompt).tolist()
    if isinstance(prompt, Sequence):
        if len(prompt) == 0:
            raise ValueError(f"prompt {number}: is an empty list")
        if all(isinstance(item, Mapping) for item in prompt):
            for turn in prompt:
                _check_turn(number, turn)
            if prompt[-1]["role"] == "assistant":
                raise ValueError(
                    f"prompt {number}: ends with the assistant's turn; the last must be one to answer"
                )
            return _CHAT
        if all(isinstance(i, numbers.Integral) and not isinstance(i, bool) for i in prompt):
            return _IDS
    lone = " (one prompt goes in a list too: [prompt])" if _is_part(prompt) else ""
    raise ValueError(f"prompt {number} = {prompt!r}: must be {_TEXT}, {_CHAT} or {_IDS}{lone}")


def _is_part(prompt: Any) -> bool:
    """Whether this is a message or an id: the list that holds it was meant as one prompt."""
    return isinstance(prompt, (Mapping, numbers.Integral)) and not isinstance(prompt, bool)


def _check_turn(number: int, turn: Mapping[str, Any]) -> None:
    if not all(isinstance(turn.get(name), str) for name in ("role", "content")):
        raise ValueError(
            f'prompt {number}: a message must be {{"role": text, "content": text}}, not {dict(turn)!r}'
        )


def _checked_ids(number: int, ids: Any, vocab_size: int) -> list[int]:
    found = [int(i) for i in ids]
    bad = next((i for i in found if not 0 <= i < vocab_size), None)
    if bad is not None:
        raise ValueError(
            f"prompt {number}: the model has no token {bad}, only 0 to {vocab_size - 1}"
        )
    return found


def _not_empty(number: int, ids: list[int]) -> list[int]:
    if not ids:
        raise ValueError(f"prompt {number}: is empty, and the tokenizer puts no BOS before it")
    return ids


def token_logprobs(
    policy: policies.Policy, rollout: Rollout, *, temperature: float | int = 1.0
) -> Float[Array, "B T"]:
    """Teacher-forced log-probs of a rollout: log softmax(logits[t-1] / temperature)[tokens[t]].

    Args:
      policy: whose probabilities; need not be the one that sampled.
      rollout: [B, T] tokens and mask.
      temperature: > 0; that of sampling, to compare with `behavior_logprobs`.
    Returns:
      [B, T] float32 nats, in every column of prompt and completion; 0 on padding and on the first
      token of a row, which nothing precedes.
    Raises:
      ValueError: temperature not > 0.
    Example:
      >>> policy = policies.load_policy("tiny")
      >>> rollout, _ = sample(policy, ["solve 3 8 :"], num_samples=2, max_new_tokens=4)
      >>> gap = token_logprobs(policy, rollout) - rollout.behavior_logprobs
      >>> bool((abs(gap) * rollout.completion_mask).max() < 1e-4)
      True
    """
    if temperature <= 0:
        raise ValueError(f"temperature = {temperature}: must be > 0")
    score = _make_scorer(policy.config)
    return score(policy.params, rollout.tokens, rollout.token_mask, temperature)
