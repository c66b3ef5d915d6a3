"""Adapters: nothing at first, trained alone, saved alone, merged exactly, split over devices."""

from __future__ import annotations

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxrl_reason import cli, parts, sharding
from jaxrl_reason import config as config_lib
from jaxrl_reason.models import convert, lora, tensor_names, transformer
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models.model_config import ExpertsConfig

TOKENS = np.asarray([[112, 112, 111, 100, 3, 8, 102], [111, 5, 7, 9, 1, 2, 3]])
MASK = np.asarray([[0, 0, 1, 1, 1, 1, 1], [1] * 7]).astype(bool)
SETTINGS = {"rank": 3, "alpha": 6.0, "targets": "attention.*, mlp.*", "seed": 5}


def make_base(seed: int) -> policies.Policy:
    """The tiny preset with two layers."""
    tiny = policies.load_policy("tiny")
    config = dataclasses.replace(tiny.config, num_layers=2)
    params = transformer.init_params(config, jax.random.key(seed))
    return policies.Policy(config, params, tiny.tokenizer, policies._make_apply(config, None))


@pytest.fixture(scope="module")
def base():
    return make_base(1)


@pytest.fixture(scope="module")
def moved(base):
    """Adapters that do something."""
    policy = policies.adapted(base, **SETTINGS)
    shaken = jax.tree.map(
        lambda x: x + 0.05 * np.random.default_rng(x.size).normal(size=x.shape).astype("float32"),
        lora.split(policy.params)[1],
    )
    return dataclasses.replace(policy, params=lora.join(policy.params, shaken))


def logits(policy) -> np.ndarray:
    return np.asarray(policy.apply(policy.params, TOKENS, MASK))[MASK]


def equal(one, two) -> bool:
    pairs = zip(convert.flat(one), convert.flat(two), strict=True)
    return all(a == b and np.array_equal(x, y) for (a, x), (b, y) in pairs)


def test_fresh_adapters_change_no_bit(base):
    policy = policies.adapted(base, **SETTINGS)
    frozen, adapters = lora.split(policy.params)
    assert equal(frozen, base.params)
    assert frozen["embedding"] is base.params["embedding"]  # shared, not copied
    assert len(convert.flat(adapters)) == 2 * 7
    a, b = (
        adapters["layers"]["attention"]["wo_lora_a"],
        adapters["layers"]["attention"]["wo_lora_b"],
    )
    assert a.shape == (2, 64, 3) and b.shape == (2, 3, 64)
    assert not b.any() and 0.8 / 8 < abs(a).max() <= 1 / 8
    np.testing.assert_array_equal(logits(policy), logits(base))


def test_a_merged_policy_is_the_adapted_one(base, moved, tmp_path):
    assert abs(logits(moved) - logits(base)).max() > 0.1
    policy = policies.merged(moved)
    assert policy.config == base.config
    np.testing.assert_allclose(logits(policy), logits(moved), atol=2e-5)
    policies.export_policy(tmp_path / "out", moved)
    exported = policies.load_policy(tmp_path / "out")
    np.testing.assert_allclose(logits(exported), logits(moved), atol=2e-5)
    # Both sides of every product at double precision, by hand.
    adapters = moved.params["layers"]["mlp"]
    a, b = (np.asarray(adapters[f"down_lora_{x}"], np.float64) for x in "ab")
    change = (
        np.asarray(exported.params["layers"]["mlp"]["down"]) - base.params["layers"]["mlp"]["down"]
    )
    np.testing.assert_allclose(change, 6.0 / 3 * a @ b, atol=1e-6)


def test_a_saved_policy_keeps_its_adapters_and_their_dtype(base, moved, tmp_path):
    half = dataclasses.replace(
        moved,
        config=dataclasses.replace(moved.config, param_dtype="bfloat16"),
        params=lora.join(
            jax.tree.map(lambda x: x.astype("bfloat16"), base.params), lora.split(moved.params)[1]
        ),
    )
    policies.save_policy(tmp_path / "p", half)
    loaded = policies.load_policy(tmp_path / "p")
    assert loaded.config == half.config and equal(loaded.params, half.params)
    assert loaded.params["layers"]["mlp"]["up_lora_a"].dtype == "float32"
    assert loaded.params["layers"]["mlp"]["up"].dtype == "bfloat16"


def test_the_folder_of_peft_holds_the_change(base, moved, tmp_path, capsys):
    policies.save_policy(tmp_path / "run", moved)
    arguments = [
        "export",
        str(tmp_path / "run"),
        str(tmp_path / "out"),
        "--adapters",
        "--base=me/it",
    ]
    assert cli.main(arguments) == 0
    fields = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (fields["r"], fields["lora_alpha"], fields["base_model_name_or_path"]) == (
        3,
        6.0,
        "me/it",
    )
    assert len(fields["target_modules"]) == 7 and "o_proj" in fields["target_modules"]
    tensors = safetensors.numpy.load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2
    policies.export_policy(tmp_path / "merged", moved)
    policies.export_policy(tmp_path / "base", base)
    merged, plain = (
        safetensors.numpy.load_file(tmp_path / name / "model.safetensors")
        for name in ("merged", "base")
    )
    for name in ("layers.1.self_attn.o_proj", "layers.0.self_attn.k_proj", "layers.1.mlp.up_proj"):
        a, b = (tensors[f"base_model.model.model.{name}.lora_{x}.weight"] for x in "AB")
        change = merged[f"model.{name}.weight"] - plain[f"model.{name}.weight"]
        np.testing.assert_allclose(change, 2.0 * b @ a, atol=1e-6)
    assert cli.main(["export", str(tmp_path / "base"), str(tmp_path / "no"), "--adapters"]) == 2
    assert "no adapters" in capsys.readouterr().err


def test_targets_that_do_not_fit_are_said(base):
    with pytest.raises(ValueError, match="'mlp.router' matches no weight.*attention.wk"):
        lora.resolve_targets(base.config, "attention.*,mlp.router")
    with pytest.raises(ValueError, match="'' matches no weight"):
        lora.resolve_targets(base.config, "")
    experts = dataclasses.replace(
        base.config, experts=ExpertsConfig(num_experts=2, top_k=1, d_ff=4, normalise=True)
    )
    with pytest.raises(ValueError, match="experts, which get no adapters.*'attention.\\*'"):
        lora.resolve_targets(experts, "*")
    assert len(lora.resolve_targets(experts, "attention.*")) == 4
    with pytest.raises(ValueError, match="adapters already"):
        policy = policies.adapted(base, **SETTINGS)
        lora.attach(
            policy.config, policy.params, rank=1, alpha=1.0, targets="*", key=jax.random.key(0)
        )


def test_every_name_that_may_be_adapted_is_a_weight_of_a_family():
    config = transformer.PRESETS["tiny"]
    for name in lora.resolve_targets(config, "*"):
        assert tensor_names.tensor_name(f"layers.{name}", config).num_stacked == 1


def test_a_mesh_splits_adapters_and_changes_no_value(base, moved, tmp_path):
    mesh = sharding.make_mesh(types.SimpleNamespace(data=2, fsdp=2, tensor=2))
    policies.save_policy(tmp_path / "p", moved)
    spread = policies.load_policy(tmp_path / "p", mesh=mesh)
    np.testing.assert_allclose(logits(spread), logits(moved), atol=2e-5)
    spec = spread.params["layers"]["attention"]["wq_lora_b"].sharding.spec
    assert spec == jax.sharding.PartitionSpec(None, None, "tensor")
    fresh = policies.adapted(spread, **SETTINGS, mesh=mesh)
    alone = policies.adapted(moved, **SETTINGS)
    spec = fresh.params["layers"]["mlp"]["up_lora_a"].sharding.spec
    assert spec == jax.sharding.PartitionSpec(None, "fsdp", None)
    assert equal(*(lora.split(p.params)[1] for p in (fresh, alone)))


def one_device():
    return sharding.make_mesh(config_lib.base().mesh, jax.devices()[:1])


def test_a_run_goes_on_from_the_merged_weights_of_another(moved):
    for rank in (0, 2):
        config = config_lib.override(config_lib.recipe("gspo"), [f"lora.rank={rank}"])
        run = parts.make_run(config, policy=moved, mesh=one_device())
        assert (run.policy.config.lora is None) == (rank == 0)
        np.testing.assert_allclose(logits(run.policy), logits(moved), atol=2e-5)
