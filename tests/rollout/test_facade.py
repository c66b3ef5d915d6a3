"""The two calls of a notebook agree with each other and with their arguments."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason as jr
from jaxrl_reason.models import tokenizer as tokenizers

PROMPTS = ["solve 3 8 :", "solve 1 2 3 4 5 :"]


@pytest.fixture(scope="module")
def policy():
    """Random weights with the arithmetic tokenizer."""
    return jr.load_policy("tiny", tokenizer=tokenizers.arithmetic_tokenizer())


def test_rows_are_prompts_times_samples_and_texts_are_their_tokens(policy):
    rollout, texts = jr.sample(policy, PROMPTS, num_samples=3, max_new_tokens=8, seed=1)
    assert rollout.tokens.shape == (6, 16 + 8)  # 4 and 7 words and BOS round up to 16 columns
    assert rollout.group_ids.tolist() == [0, 0, 0, 1, 1, 1]
    for row, text in enumerate(texts):
        ids = np.asarray(rollout.tokens[row])[np.asarray(rollout.completion_mask[row])]
        assert tokenizers.decode_completion(policy.tokenizer, ids) == text
    prompt = np.asarray(rollout.tokens[3])[:16][np.asarray(rollout.token_mask[3])[:16]]
    assert prompt.tolist() == tokenizers.encode_prompt(policy.tokenizer, PROMPTS[1])


def test_the_seed_decides(policy):
    first, second, other = (
        jr.sample(policy, PROMPTS, num_samples=3, max_new_tokens=8, seed=seed)[0].tokens
        for seed in (3, 3, 4)
    )
    assert (first == second).all()
    assert (first != other).any()


def test_temperature_zero_is_the_same_for_every_seed(policy):
    first, other = (
        jr.sample(policy, PROMPTS, max_new_tokens=8, temperature=0, seed=seed)[1] for seed in (3, 4)
    )
    assert first == other


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_teacher_forced_log_probs_are_the_sampled_ones(policy, temperature: float):
    rollout, _ = jr.sample(
        policy, PROMPTS, num_samples=3, max_new_tokens=8, temperature=temperature
    )
    scored = jr.token_logprobs(policy, rollout, temperature=temperature)
    assert scored.dtype == jnp.float32
    chosen = np.asarray(rollout.completion_mask)
    assert chosen.sum() > 6
    np.testing.assert_allclose(
        np.asarray(scored)[chosen], np.asarray(rollout.behavior_logprobs)[chosen], atol=1e-5
    )


@pytest.mark.parametrize(
    ("prompts", "options", "words"),
    [
        ([], {}, "at least one string"),
        ("solve 3 8 :", {}, "must be a list"),
        (PROMPTS, {"temperature": -1.0}, "must be >= 0"),
        (PROMPTS, {"num_samples": 0}, "num_samples = 0"),
        (PROMPTS, {"max_new_tokens": 0}, "max_new_tokens = 0"),
    ],
)
def test_bad_requests_are_refused(policy, prompts, options: dict, words: str):
    with pytest.raises(ValueError, match=words):
        jr.sample(policy, prompts, **options)
