"""Sampling and scoring of text for notebooks: lists of strings in, arrays and strings out.

Host side; drives the device. Reads: nothing. Writes: nothing.

The training loop goes through `batching.Engine`, which fixes its shapes once. Here shapes follow
the input; prompt widths are rounded up, so that a word more does not compile again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.rollout import batching, sampler
from jaxrl_reason.types import Rollout

_PROMPT_COLUMNS = 16  # prompt widths are multiples of this

_make_sampler = functools.lru_cache(maxsize=16)(sampler.make_sampler)
_make_scorer: Callable = functools.lru_cache(maxsize=16)(sampler.make_scorer)


def sample(
    policy: policies.Policy,
    prompts: Sequence[str],
    *,
    num_samples: int = 1,
    max_new_tokens: int = 64,
    temperature: float | int = 1.0,
    seed: int = 0,
) -> tuple[Rollout, list[str]]:
    """Completions of prompts.

    Args:
      policy: from `load_policy`.
      prompts: N texts, as the policy is to read them.
      num_samples: G, completions per prompt, >= 1.
      max_new_tokens: C, most tokens of a completion, >= 1.
      temperature: of sampling, >= 0; 0 takes the most likely token.
      seed: same seed and arguments, same completions.
    Returns:
      (Rollout of B = N * G rows, B texts); row n * G + j is sample j of prompt n.
    Raises:
      ValueError: no prompts, a negative temperature, or sizes below 1.
    Example:
      >>> policy = policies.load_policy("tiny")
      >>> rollout, texts = sample(policy, ["solve 3 8 :"], num_samples=2, max_new_tokens=4)
      >>> rollout.tokens.shape, len(texts)
      ((2, 20), 2)
    """
    if not prompts or isinstance(prompts, str):
        raise ValueError(f"prompts = {prompts!r}: must be a list of at least one string")
    if temperature < 0:
        raise ValueError(f"temperature = {temperature}: must be >= 0; 0 takes the likeliest token")
    tokenizer = policy.tokenizer
    sequences = [tokenizers.encode_prompt(tokenizer, text) for text in prompts]
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
