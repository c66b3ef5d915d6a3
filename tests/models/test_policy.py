"""Presets, folders and what is said when files do not fit."""

from __future__ import annotations

import dataclasses
import json
import resource
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxrl_reason import sharding
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.models import transformer

TOKENS = np.asarray([[111, 100, 3, 8, 102]])
MASK = np.ones((1, 5), bool)


@pytest.fixture(scope="module")
def tiny():
    """The tiny preset with the default tokenizer."""
    return policies.load_policy("tiny", seed=1)


@pytest.fixture
def folder(tiny, tmp_path):
    """A folder with the tiny policy, to be damaged."""
    policies.save_policy(tmp_path / "policy", tiny)
    return tmp_path / "policy"


def same(one, two) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, two)))


def test_a_preset_takes_its_vocabulary_from_the_tokenizer(tiny):
    assert tiny.config.vocab_size == len(tiny.tokenizer) == len(tokenizers.arithmetic_tokenizer())
    assert 150_000 < sum(x.size for x in jax.tree.leaves(tiny.params)) < 250_000
    other = policies.load_policy("tiny", tokenizer=tokenizers.byte_tokenizer())
    assert other.params["embedding"].shape[0] == len(other.tokenizer) == 264


def test_the_seed_decides_the_weights(tiny):
    assert same(policies.load_policy("tiny", seed=1).params, tiny.params)
    assert not same(policies.load_policy("tiny", seed=2).params, tiny.params)


def test_apply_gives_float32_logits_of_the_model(tiny):
    logits = tiny.apply(tiny.params, TOKENS, MASK)
    assert logits.shape == (1, 5, 120) and logits.dtype == jnp.float32
    hidden, _ = transformer.forward(
        tiny.config, tiny.params, jnp.asarray(TOKENS), jnp.asarray(MASK)
    )
    np.testing.assert_allclose(logits, transformer.logits(tiny.params, hidden), atol=1e-5)


def test_a_saved_policy_comes_back(tiny, folder):
    loaded = policies.load_policy(folder)
    assert loaded.config == tiny.config
    assert same(loaded.params, tiny.params)
    assert loaded.tokenizer.get_vocab() == tiny.tokenizer.get_vocab()
    assert loaded.tokenizer.eos_token_id == tiny.tokenizer.eos_token_id
    np.testing.assert_array_equal(
        loaded.apply(loaded.params, TOKENS, MASK), tiny.apply(tiny.params, TOKENS, MASK)
    )


def test_a_run_folder_gives_its_policy(tiny, folder):
    assert same(policies.load_policy(str(folder.parent)).params, tiny.params)


def test_saving_again_replaces_and_leaves_nothing_behind(tiny, folder):
    policies.save_policy(
        folder, dataclasses.replace(tiny, params=jax.tree.map(jnp.zeros_like, tiny.params))
    )
    assert not np.asarray(policies.load_policy(folder).params["embedding"]).any()
    assert [p.name for p in folder.parent.iterdir()] == ["policy"]


def test_dtype_and_remat_are_those_of_the_call(folder):
    loaded = policies.load_policy(folder, dtype="bfloat16", remat="full")
    assert (loaded.config.dtype, loaded.config.remat) == ("bfloat16", "full")
    assert loaded.params["embedding"].dtype == jnp.float32


def test_bfloat16_parameters_survive(tiny, tmp_path):
    config = dataclasses.replace(tiny.config, param_dtype="bfloat16")
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny.params)
    policies.save_policy(tmp_path / "half", dataclasses.replace(tiny, config=config, params=half))
    loaded = policies.load_policy(tmp_path / "half")
    assert loaded.params["embedding"].dtype == jnp.bfloat16
    assert same(loaded.params, half)


def test_a_mesh_splits_parameters_and_changes_no_value(tiny, folder, tmp_path):
    mesh = sharding.make_mesh(types.SimpleNamespace(data=1, fsdp=4, tensor=2))
    for source in (folder, "tiny"):
        placed = policies.load_policy(source, mesh=mesh, seed=1)
        up = placed.params["layers"]["mlp"]["up"]  # [5, 64, 128]
        assert up.sharding.shard_shape(up.shape) == (5, 16, 64)
        for one, two in zip(*map(jax.tree.leaves, (placed.params, tiny.params)), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)
        np.testing.assert_allclose(
            placed.apply(placed.params, TOKENS, MASK),
            tiny.apply(tiny.params, TOKENS, MASK),
            atol=1e-4,
        )
    policies.save_policy(tmp_path / "again", placed)
    np.testing.assert_allclose(
        policies.load_policy(tmp_path / "again").params["embedding"],
        tiny.params["embedding"],
        atol=1e-6,
    )


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"'tyni' is neither a preset \(tiny, small\) nor a folder"
    ):
        policies.load_policy("tyni")
    with pytest.raises(FileNotFoundError, match=r"no model.json here or in policy/"):
        policies.load_policy(tmp_path)


@pytest.mark.parametrize("name", ["params.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder, name: str):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        policies.load_policy(folder)


def test_all_tensors_that_do_not_fit_come_in_one_error(folder):
    tensors = safetensors.numpy.load_file(folder / "params.safetensors")
    del tensors["final_norm.scale"], tensors["layers.mlp.up"]
    tensors["layers.mlp.upp"] = np.zeros(3, np.float32)
    tensors["embedding"] = tensors["embedding"][:7]
    safetensors.numpy.save_file(tensors, folder / "params.safetensors")
    with pytest.raises(ValueError) as error:
        policies.load_policy(folder)
    for text in (
        "final_norm.scale: missing",
        "layers.mlp.up: missing",
        "layers.mlp.upp: the model has no such tensor",
        "embedding: shape (7, 64), the model needs (120, 64)",
    ):
        assert text in str(error.value)


def test_damaged_files_are_named(folder):
    tensors = (folder / "params.safetensors").read_bytes()
    (folder / "params.safetensors").write_bytes(tensors[: len(tensors) // 2])
    with pytest.raises(ValueError, match="params.safetensors: is damaged"):
        policies.load_policy(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(ValueError, match="model.json: is not JSON"):
        policies.load_policy(folder)


def test_a_bad_model_file_lists_its_fields(folder):
    fields = json.loads((folder / "model.json").read_text())
    fields["width"] = fields.pop("d_model")
    (folder / "model.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="width: no such field\n  d_model: missing"):
        policies.load_policy(folder)


def test_another_tokenizer_than_the_tasks_is_an_error(folder):
    policies.load_policy(folder, tokenizer=tokenizers.arithmetic_tokenizer())
    with pytest.raises(
        ValueError, match=r"120 tokens\) is not the one the task uses \(264 tokens\)"
    ):
        policies.load_policy(folder, tokenizer=tokenizers.byte_tokenizer())


def test_a_folder_that_is_no_policy_is_not_overwritten(tiny, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds files but no policy"):
        policies.save_policy(tmp_path, tiny)
    assert (tmp_path / "thesis.txt").exists()


@pytest.fixture
def small_files():
    """No file may grow beyond 100 kB: writing fails as on a full disk."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "save": policies.save_policy,
    "export": policies.export_policy,
    "adapters": lambda folder, policy: policies.export_adapters(
        folder, policies.adapted(policy, rank=32, alpha=32.0, targets="*", seed=0)
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_that_cannot_be_written_is_one_line_and_leaves_nothing(
    tiny, tmp_path, small_files, kind: str
):
    with pytest.raises(OSError, match=r"out: cannot be written \(.*\); .* GB are free") as caught:
        WRITERS[kind](tmp_path / "out", tiny)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_what_was_there(tiny, folder, small_files):
    with pytest.raises(OSError, match="cannot be written"):
        policies.save_policy(folder, policies.load_policy("tiny", seed=5))
    assert [path.name for path in folder.parent.iterdir()] == ["policy"]
    assert same(policies.load_policy(folder).params, tiny.params)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_file_has_the_mode_of_a_new_one(tiny, tmp_path, kind: str):
    WRITERS[kind](tmp_path / "out", tiny)
    (tmp_path / "new").touch()
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert set(modes.values()) == {(tmp_path / "new").stat().st_mode} and len(modes) >= 2
