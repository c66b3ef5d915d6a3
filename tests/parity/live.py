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

from jaxrl_reason import sharding
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import prm
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.rollout import sampler
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
