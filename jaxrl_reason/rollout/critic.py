"""A language model as critic: the policy in training or another checkpoint, asked for the first wrong step.

Host side; drives the device. Reads: a policy folder. Writes: nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxrl_reason.credit import critic
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import prompts as prompts_lib
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.rollout import batching
from jaxrl_reason.types import CriticAnswers, CriticFn, Params

OWN = "policy"  # the policy in training is its own critic
_TEMPERATURE = 0.7  # of several answers, as ProcessBench samples them; one answer is greedy


@dataclasses.dataclass(frozen=True)
class Critic:
    """An engine with the critic's budgets, and its parameters; None: those of the policy in training."""

    engine: batching.Engine
    params: Params | None
    encode: Callable[[str], Sequence[int]]  # a prompt, through the chat template where there is one


def load_critic(
    config: ml_collections.ConfigDict, policy: policies.Policy | None, mesh: jax.sharding.Mesh
) -> Critic:
    """The critic of `config.locate`.

    Args:
      config: of the run; reads locate, model (dtype; prompt_format: plain leaves a chat template out; enable_thinking),
        rollout.chunk_rows, loss.vocab_chunk.
      policy: of the run; None: there is none, and `locate.critic_source` names a folder.
      mesh: devices.
    Returns:
      Critic.
    Raises:
      FileNotFoundError, ValueError: as `load_policy`; ValueError too where the vocabulary lacks the prompt's words.
    """
    settings = config.locate
    own = settings.critic_source == OWN
    if not own:
        policy = policies.load_policy(settings.critic_source, dtype=config.model.dtype, mesh=mesh)
    encode = _encoder(config.model, policy.tokenizer)
    _check_vocabulary(policy.tokenizer, encode, settings)
    prompt, new = settings.critic_prompt_tokens, settings.critic_new_tokens
    shapes = batching.Shapes(prompt, new, prompt, config.rollout.chunk_rows)
    engine = batching.Engine(
        policy.config, policy.tokenizer, shapes, mesh=mesh, vocab_chunk=config.loss.vocab_chunk
    )
    return Critic(engine, None if own else policy.params, encode)


def _encoder(model: ml_collections.ConfigDict, tokenizer: Any) -> Callable[[str], Sequence[int]]:
    if model.prompt_format == "plain" or not getattr(tokenizer, "chat_template", None):
        return lambda text: tokenizers.encode_prompt(tokenizer, text)
    thinking = model.enable_thinking
    return lambda text: prompts_lib.encode_chat(tokenizer, text, enable_thinking=thinking)


def _check_vocabulary(
    tokenizer: Any, encode: Callable[[str], Sequence[int]], settings: ml_collections.ConfigDict
) -> None:
    unknown = getattr(tokenizer, "unk_token_id", None)
    ids = encode(critic.FORMS[settings.critic_form].prompt("", [""]))
    if unknown is not None and unknown in ids:
        raise ValueError(
            f"locate.critic_source = {settings.critic_source!r}: its tokenizer lacks {ids.count(unknown)} of the"
            f" {len(ids)} tokens of the critic's prompt, so it cannot be a critic; name a model of natural language, or"
            " choose another locate.kind"
        )


def ask_fn(judge: Critic, params: Params, key: jax.Array) -> CriticFn:
    """The critic as a function of prompts, with an update's parameters and key in it.

    Args:
      judge: from `load_critic`.
      params: of the policy in training; used where it is its own critic.
      key: of the update.
    Returns:
      CriticFn; prompts over the budget have no answers.
    """

    def ask(prompts, num_samples):
        engine = judge.engine
        encoded = [judge.encode(text) for text in prompts]
        rows = [i for i, ids in enumerate(encoded) if len(ids) <= engine.shapes.prompt]
        groups = engine.sample(
            params if judge.params is None else judge.params,
            key,
            [encoded[i] for i in rows],
            stage="locate-critic",
            num_samples=num_samples,
            temperature=0.0 if num_samples == 1 else _TEMPERATURE,
        )
        texts: list[list[str]] = [[] for _ in prompts]
        written = np.zeros(len(prompts), int)
        for i, group in zip(rows, groups, strict=True):
            texts[i] = [answer.text for answer in group]
            written[i] = sum(answer.num_generated for answer in group)
        return CriticAnswers(texts, written)

    return ask
