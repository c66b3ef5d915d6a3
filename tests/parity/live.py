"""The live comparison with `transformers` on PyTorch, over fresh random weights of every family; `make parity`.

Not collected by `make test`: it needs the `parity` extra. Reads: nothing. Writes: temporary folders.
"""

from __future__ import annotations

import types

import jax
import numpy as np
import pytest
import torch
import transformers

import jaxrl_reason as jr
from jaxrl_reason import sharding
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import prm
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.rollout import sampler
from tests.models import chat
from tests.parity import checkpoints

NO_STOP = 128  # an id that no model here can make
SEED = 7  # other weights than those of the golden files


@pytest.fixture(scope="module", params=checkpoints.CASES)
def made(request, tmp_path_factory):
    """(name, PyTorch model, its folder)."""
    folder = tmp_path_factory.mktemp(request.param)
    model = checkpoints.make_model(request.param, SEED)
    checkpoints.save(model, request.param, folder)
    tokenizers.arithmetic_tokenizer().save_pretrained(folder)
    return request.param, model, folder


def load(name: str, folder, mesh=None):
    if name == "qwen2_prm":
        return prm.load_prm(folder, mesh=mesh)
    return policies.load_policy(folder, mesh=mesh)


def relative_gap(one: np.ndarray, two: np.ndarray, mask: np.ndarray) -> float:
    return float(np.abs(one - two)[mask].max() / np.abs(two).max())


@pytest.mark.parametrize("tensor", [0, 2], ids=["one_device", "eight_devices"])
def test_logits(made, tensor):
    name, model, folder = made
    mesh = None
    if tensor:
        mesh = sharding.make_mesh(types.SimpleNamespace(data=2, fsdp=2, tensor=tensor))
    tokens, mask = checkpoints.ragged_batch(SEED)
    expected = checkpoints.logits(model, tokens, mask)
    loaded = load(name, folder, mesh)
    found = np.asarray(loaded.apply(loaded.params, tokens, mask))
    gap = relative_gap(found, expected, mask)
    print(f"{name}, {8 if tensor else 1} devices: logits differ by {gap:.1e} of the largest")
    assert gap <= 1e-4


def test_greedy_continuation(made):
    name, model, folder = made
    if name == "qwen2_prm":
        pytest.skip("makes no text")
    tokens, mask = checkpoints.ragged_batch(SEED)
    prompts, prompt_mask = tokens[[0, 3], :12], mask[[0, 3], :12]
    policy = load(name, folder)
    sample = sampler.make_sampler(
        policy.config, num_samples=1, max_new_tokens=32, eos_id=NO_STOP, pad_id=0, greedy=True
    )
    budget = np.full(2, 32)
    rollout = sample(
        policy.params, prompts.astype(np.int32), prompt_mask, budget, 0.0, jax.random.key(0)
    )
    for row, (prompt, real) in enumerate(zip(prompts, prompt_mask, strict=True)):
        expected = checkpoints.greedy(model, prompt[real], 32)
        np.testing.assert_array_equal(rollout.tokens[row, 12:], expected)


def test_export(made, tmp_path):
    name, model, folder = made
    if name == "qwen2_prm":
        pytest.skip("is not exported")
    policies.export_policy(tmp_path / "out", load(name, folder))
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, local_files_only=True
    ).eval()
    tokens, mask = checkpoints.ragged_batch(SEED)
    expected = checkpoints.logits(model, tokens, mask)
    gap = relative_gap(checkpoints.logits(again, tokens, mask), expected, mask)
    print(f"{name}: export changed logits by {gap:.1e} of the largest")
    assert gap <= 1e-5
    assert type(again).__name__ == checkpoints.CASES[name][0]
    assert again.generation_config.eos_token_id == 112
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    assert tokenizer.get_vocab() == tokenizers.arithmetic_tokenizer().get_vocab()


def test_a_preset_exports_too(tmp_path):
    policy = policies.load_policy("tiny", seed=SEED)
    policies.export_policy(tmp_path / "out", policy)
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", local_files_only=True
    ).eval()
    tokens, mask = checkpoints.ragged_batch(SEED)
    expected = np.asarray(policy.apply(policy.params, tokens, mask))
    assert relative_gap(checkpoints.logits(again, tokens, mask), expected, mask) <= 1e-5


@pytest.mark.parametrize("template", [chat.TEMPLATE, chat.BOS_TEMPLATE], ids=["qwen", "llama"])
def test_greedy_chats(tmp_path, template):
    """Texts and chats, through the template and up to the end of the turn, are what `generate` makes of them."""
    asked = ["What is 3 + 4?", "A café sells 2 cups at €5 each. How much?"]
    tokenizer = chat.make_tokenizer(asked, 300, template)
    tokenizer.eos_token = tokenizer.bos_token = "<|endoftext|>"
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 256}
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    model = checkpoints.make_model("qwen3", SEED, **sizes, **ends)
    checkpoints.save(model, "qwen3", tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = jr.load_policy(tmp_path)
    stops = list(tokenizers.stop_ids(policy.tokenizer))
    assert tokenizer.convert_ids_to_tokens(stops) == ["<|endoftext|>", "<|im_end|>"]
    chats = [[{"role": "user", "content": text}] for text in asked]
    more = [
        {"role": "system", "content": "Be brief."},
        *chats[0],
        {"role": "assistant", "content": "7"},
    ]
    for prompts, turns in ((asked, chats), (chats, chats), ([more + chats[1]], [more + chats[1]])):
        rollout, texts = jr.sample(policy, prompts, temperature=0, max_new_tokens=48)
        for row, turn in enumerate(turns):
            ids = tokenizer.apply_chat_template(
                turn, add_generation_prompt=True, return_tensors="pt"
            )["input_ids"]
            made = model.generate(
                ids, do_sample=False, max_new_tokens=48, eos_token_id=stops, pad_token_id=stops[0]
            )[0, ids.shape[1] :].tolist()
            chosen = np.asarray(rollout.completion_mask[row])
            assert np.asarray(rollout.tokens[row])[chosen].tolist() == made
            assert texts[row] == tokenizers.decode_completion(tokenizer, made)
