"""The two calls of a notebook agree with each other and with their arguments."""

from __future__ import annotations

import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason as jr
from jaxrl_reason.models import tokenizer as tokenizers
from tests.models import chat

GOLDEN = pathlib.Path(__file__).parents[1] / "models" / "golden"
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


@pytest.fixture(scope="module")
def chat_policy(tmp_path_factory):
    """A base checkpoint whose chats end otherwise than its texts."""
    tokenizer = chat.make_tokenizer(["What is 3 + 4?"], 300)
    tokenizer.eos_token = "<|endoftext|>"
    folder = tmp_path_factory.mktemp("chat") / "model"
    eos = tokenizer.eos_token_id
    chat.save_checkpoint(folder, tokenizer, eos_token_id=eos)
    return jr.load_policy(folder)


def prompt_ids(rollout, row: int = 0) -> list[int]:
    given = np.asarray(rollout.token_mask[row]) & ~np.asarray(rollout.completion_mask[row])
    return np.asarray(rollout.tokens[row])[given].tolist()


def test_texts_chats_and_ids_are_one_prompt(chat_policy):
    tokenizer, text = chat_policy.tokenizer, "What is 3 + 4?"
    message = [{"role": "user", "content": text}]
    ids = tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
    found = [
        jr.sample(chat_policy, [prompt], max_new_tokens=4, **options)
        for prompt, options in (
            (text, {}),
            (text, {"chat": True}),
            (message, {}),
            (ids, {}),
            (np.asarray(ids), {"chat": False}),
        )
    ]
    for rollout, texts in found:
        assert prompt_ids(rollout) == list(ids)
        assert texts == found[0][1]
    rollout, _ = jr.sample(chat_policy, [text], max_new_tokens=4, chat=False)
    assert tokenizer.decode(prompt_ids(rollout)) == text


def test_no_text_makes_a_special_token_but_ids_do(chat_policy):
    tokenizer = chat_policy.tokenizer
    special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    rollout, _ = jr.sample(chat_policy, ["<|im_start|>user\nHi"], max_new_tokens=4, chat=False)
    assert not special & set(prompt_ids(rollout))
    assert tokenizer.decode(prompt_ids(rollout)) == "<|im_start|>user\nHi"
    ids = tokenizer.encode("<|im_start|>user\nHi there, you<|im_end|>\n<|im_start|>assistant\n")
    rollout, _ = jr.sample(chat_policy, [ids], max_new_tokens=4)
    assert prompt_ids(rollout) == ids and sum(i in special for i in ids) == 3


def test_the_end_of_a_turn_ends_a_sample(chat_policy):
    # Random weights over 269 tokens: by 64 rows of 64 tokens some end in each of the two.
    rollout, texts = jr.sample(chat_policy, ["Hi"], num_samples=64, max_new_tokens=64)
    tokens, chosen = np.asarray(rollout.tokens), np.asarray(rollout.completion_mask)
    ends = {"<|endoftext|>": 0, "<|im_end|>": 0}
    for row in range(64):
        written = chat_policy.tokenizer.convert_ids_to_tokens(tokens[row][chosen[row]].tolist())
        assert not ends.keys() & set(written[:-1])
        assert bool(rollout.truncated[row]) == (written[-1] not in ends)
        for end in ends:
            ends[end] += written[-1] == end
    assert min(ends.values()) > 0


@pytest.mark.parametrize("kind", ["text", "messages", "ids"])
def test_greedy_is_that_of_pytorch(tmp_path, kind: str):
    """The template writes the golden prompt around its middle; the golden tokens follow, up to the end of a turn."""
    folder, golden = tmp_path / "qwen2", np.load(GOLDEN / "qwen2" / "golden.npz")
    shutil.copytree(GOLDEN / "qwen2", folder)
    tokenizer = tokenizers.arithmetic_tokenizer()
    ids, greedy = golden["tokens"][3, :8].tolist(), golden["greedy"].tolist()
    words = tokenizer.convert_ids_to_tokens(ids)
    assert tokenizer.unk_token not in words
    closing = tokenizer.convert_ids_to_tokens(greedy[6])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '" + " ".join(words[:2]) + " ' if loop.first }}{{ m.content }}"
        "{{ ' " + closing + "' if m.role == 'assistant' }}{% endfor %}"
        "{% if add_generation_prompt %} " + " ".join(words[6:]) + "{% endif %}"
    )
    tokenizers.save(tokenizer, folder)
    policy = jr.load_policy(folder)
    text = " ".join(words[2:6])
    prompt = {"text": text, "messages": [{"role": "user", "content": text}], "ids": ids}[kind]
    rollout, texts = jr.sample(policy, [prompt], temperature=0, max_new_tokens=32)
    assert prompt_ids(rollout) == ids
    end = next(at for at, i in enumerate(greedy) if i in tokenizers.stop_ids(policy.tokenizer))
    chosen = np.asarray(rollout.completion_mask[0])
    assert np.asarray(rollout.tokens[0])[chosen].tolist() == greedy[: end + 1]
    assert end <= 6 and not rollout.truncated[0]
    assert texts == [tokenizer.decode(greedy[:end])]


MESSAGE = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("prompts", "options", "words"),
    [
        (["Hi", [MESSAGE]], {}, "first is a text, number 1 is a list of messages; give prompts of one"),
        ([[1, 2], [3], "Hi"], {}, "first is a list of token ids, number 2 is a text"),
        ([MESSAGE], {}, r"must be a text, .* or a list of token ids \(one prompt goes in a list too"),
        ([1, 2, 3], {}, r"prompt 0 = 1: must be .*one prompt goes in a list too"),
        ([[1, 2.5]], {}, "must be a text"),
        ([[True, False]], {}, "must be a text"),
        ([[MESSAGE, 3]], {}, "must be a text"),
        ([[]], {}, "prompt 0: is an empty list"),
        ([""], {"chat": False}, "prompt 0: is empty, and the tokenizer puts no BOS"),
        ([[5, 1000]], {}, "the model has no token 1000, only 0 to 2"),
        ([[-1]], {}, "the model has no token -1"),
        ([[{"role": "user"}]], {}, r"must be \{.role.: text, .content.: text\}, not \{.role.: .user.\}"),
        ([[MESSAGE, {"role": "assistant", "content": "x"}]], {}, "ends with the assistant's turn"),
        ([[MESSAGE]], {"chat": False}, "chat = False: messages need the chat template"),
        (["Hi"], {"chat": "yes"}, "chat = 'yes': must be 'auto', True or False"),
    ],
)  # fmt: skip
def test_bad_chats_are_refused(chat_policy, prompts, options: dict, words: str):
    with pytest.raises(ValueError, match=words):
        jr.sample(chat_policy, prompts, max_new_tokens=1, **options)


def test_a_chat_needs_a_template(policy):
    for prompts, options in ((["solve 3 8 :"], {"chat": True}), ([[MESSAGE]], {})):
        with pytest.raises(ValueError, match="the checkpoint has no chat template"):
            jr.sample(policy, prompts, **options)
