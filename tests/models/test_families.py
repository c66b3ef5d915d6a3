"""Checkpoints of every family against logits that PyTorch computed, without PyTorch; and what bad ones get told.

Reads: golden/, written by tests/parity/make_golden.py. Writes: temporary folders.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxrl_reason import cli, sharding
from jaxrl_reason.models import cache as kv
from jaxrl_reason.models import convert, families, prm, rope, transformer
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.models.model_config import RopeScaling
from jaxrl_reason.rollout import sampler

GOLDEN = pathlib.Path(__file__).parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.name != "qwen2_prm")
# Of the largest logit. Norms over a few channels of the delta rule's small results magnify rounding: in float64 PyTorch
# itself differs by 7e-6 from what it says in float32 of Qwen3-Next.
TOLERANCE = dict.fromkeys(CASES, 1e-5) | {"qwen3_next": 5e-5}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> pathlib.Path:
    """The golden checkpoints, each with the arithmetic tokenizer in it."""
    root = tmp_path_factory.mktemp("golden")
    for path in GOLDEN.iterdir():
        shutil.copytree(path, root / path.name)
        tokenizers.arithmetic_tokenizer().save_pretrained(root / path.name)
    return root


@pytest.fixture(params=CASES)
def case(request) -> str:
    return request.param


@pytest.fixture
def damaged(checkpoints, tmp_path) -> pathlib.Path:
    """A copy of one checkpoint, to be damaged."""
    shutil.copytree(checkpoints / "llama3", tmp_path / "llama3")
    return tmp_path / "llama3"


def golden(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / name / "golden.npz"))


def edit(folder: pathlib.Path, file: str = "config.json", **fields) -> None:
    found = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(found | fields))


def assert_near(found, expected, mask, tolerance: float) -> None:
    """Largest difference on real tokens, relative to the size of the logits."""
    gap = np.abs(np.asarray(found) - expected)[mask].max()
    assert gap <= tolerance * np.abs(expected).max()


def test_logits_are_those_of_pytorch(checkpoints, case):
    policy, answer = policies.load_policy(checkpoints / case), golden(case)
    logits = policy.apply(policy.params, answer["tokens"], answer["mask"])
    assert policy.config.param_dtype == "bfloat16"  # as stored
    assert_near(logits, answer["logits"], answer["mask"], TOLERANCE[case])


def test_decoding_with_a_cache_equals_reading_at_once(checkpoints, case):
    """Rows 0 to 2 read given tokens, row 3 goes on from its first 8 with the likeliest ones."""
    policy, answer = policies.load_policy(checkpoints / case), golden(case)
    config, tokens, mask = policy.config, answer["tokens"], answer["mask"]
    tokens = np.pad(tokens, ((0, 0), (0, 20)))
    tokens[3, 8:] = answer["greedy"]
    mask = np.pad(mask, ((0, 0), (0, 20)))
    mask[3] = True
    cache = kv.empty(config, rows=4, columns=40)

    @jax.jit
    def step(tokens, mask, cache):
        hidden, cache = transformer.forward(config, policy.params, tokens, mask, cache)
        return transformer.logits(policy.params, hidden), cache

    parts = []
    for piece in (slice(0, 8), *(slice(t, t + 1) for t in range(8, 40))):
        logits, cache = step(jnp.asarray(tokens[:, piece]), jnp.asarray(mask[:, piece]), cache)
        parts.append(np.asarray(logits))
    logits = np.concatenate(parts, axis=1)
    assert_near(logits[:3, :20], answer["logits"][:3], answer["mask"][:3], TOLERANCE[case])
    np.testing.assert_array_equal(logits[3, 7:-1].argmax(axis=-1), answer["greedy"])


def test_a_completion_ends_at_any_of_several_stop_tokens(checkpoints, tmp_path):
    answer, folder = golden("qwen2"), tmp_path / "qwen2"
    shutil.copytree(checkpoints / "qwen2", folder)
    first, second = (int(answer["greedy"][at]) for at in (20, 4))
    edit(folder, "generation_config.json", eos_token_id=[first, second])
    policy = policies.load_policy(folder)
    assert set(tokenizers.stop_ids(policy.tokenizer)) == {first, second, 112}
    sample = sampler.make_sampler(
        policy.config,
        num_samples=1,
        max_new_tokens=32,
        eos_id=tokenizers.stop_ids(policy.tokenizer),
        pad_id=policy.tokenizer.pad_token_id,
        greedy=True,
    )
    prompt = answer["tokens"][3:, :8].astype(np.int32)
    mask = np.ones(prompt.shape, bool)
    rollout = sample(policy.params, prompt, mask, np.asarray([32]), 0.0, jax.random.key(0))
    length = int(rollout.completion_mask.sum())
    ends = [at for at, i in enumerate(answer["greedy"]) if i in (first, second)]
    assert length == ends[0] + 1 <= 5 and not rollout.truncated[0]
    np.testing.assert_array_equal(rollout.tokens[0, 8 : 8 + length], answer["greedy"][:length])


def test_an_exported_checkpoint_is_the_one_that_was_read(checkpoints, case, tmp_path):
    policy = policies.load_policy(checkpoints / case)
    policies.export_policy(tmp_path / "out", policy)
    read = [
        {
            name: x
            for file in folder.glob("*.safetensors")
            for name, x in safetensors.numpy.load_file(file).items()
        }
        for folder in (checkpoints / case, tmp_path / "out")
    ]
    assert read[0].keys() == read[1].keys()
    for name, array in read[0].items():
        np.testing.assert_array_equal(array, read[1][name], err_msg=name)
    again = policies.load_policy(tmp_path / "out")
    assert again.config == policy.config
    assert tokenizers.stop_ids(again.tokenizer) == tokenizers.stop_ids(policy.tokenizer)


@pytest.mark.parametrize("case", ["qwen2", "qwen3", "qwen3_moe", "qwen3_next"])
def test_a_mesh_changes_no_logit(checkpoints, case):
    mesh, answer = sharding.make_mesh(types.SimpleNamespace(data=1, fsdp=4, tensor=2)), golden(case)
    policy = policies.load_policy(checkpoints / case, mesh=mesh)
    layers = policy.params["layers"]
    layers = layers.get("place_1", layers)  # of each period the one that attends
    up, wq = layers["mlp"]["up"], layers["attention"]["wq"]
    assert up.sharding.shard_shape(up.shape)[-2:] == (4, up.shape[-1] // 2)
    assert wq.sharding.shard_shape(wq.shape)[1:3] == (4, 2)
    if case == "qwen3_next":
        delta = policy.params["layers"]["place_0"]["delta"]["wqkvz"]
        assert delta.sharding.shard_shape(delta.shape)[1:3] == (4, 1)  # of 16 and 2 key heads
    logits = policy.apply(policy.params, answer["tokens"], answer["mask"])
    assert_near(logits, answer["logits"], answer["mask"], TOLERANCE[case])


def test_no_piece_of_a_mesh_reads_more_than_itself(checkpoints, monkeypatch):
    mesh = sharding.make_mesh(types.SimpleNamespace(data=1, fsdp=4, tensor=2))
    sizes, read_piece = [], convert._read_piece
    monkeypatch.setattr(
        convert,
        "_read_piece",
        lambda *a: sizes.append((a[1].template, (x := read_piece(*a)).size)) or x,
    )
    policies.load_policy(checkpoints / "llama3", mesh=mesh)
    of_wq = [size for name, size in sizes if "q_proj" in name]
    assert of_wq == [2 * 16 * 16 // 8] * 8  # L * D * H * E over 8 devices


def test_parameters_can_be_float32(checkpoints):
    policy = policies.load_policy(checkpoints / "qwen2", param_dtype="float32", dtype="bfloat16")
    assert (policy.config.param_dtype, policy.config.dtype) == ("float32", "bfloat16")
    assert {x.dtype for x in jax.tree.leaves(policy.params)} == {jnp.dtype("float32")}


def test_a_policy_saved_by_us_keeps_its_family(checkpoints, case, tmp_path):
    policy = policies.load_policy(checkpoints / case)
    policies.save_policy(tmp_path / "policy", policy)
    # A task's own tokenizer is no condition: this policy came with another.
    again = policies.load_policy(tmp_path / "policy", tokenizer=tokenizers.byte_tokenizer())
    assert again.config == policy.config
    assert again.tokenizer.get_vocab() == policy.tokenizer.get_vocab()
    assert tokenizers.stop_ids(again.tokenizer) == (112,)


def test_process_rewards_are_those_of_pytorch(checkpoints):
    model, answer = prm.load_prm(checkpoints / "qwen2_prm"), golden("qwen2_prm")
    logits = model.apply(model.params, answer["tokens"], answer["mask"])
    assert_near(logits, answer["logits"], answer["mask"], 1e-5)
    mesh = sharding.make_mesh(types.SimpleNamespace(data=1, fsdp=4, tensor=2))
    split = prm.load_prm(checkpoints / "qwen2_prm", mesh=mesh)
    logits = split.apply(split.params, answer["tokens"], answer["mask"])
    assert_near(logits, answer["logits"], answer["mask"], 1e-5)


def test_each_step_has_a_reward_at_its_end(checkpoints, tmp_path):
    folder = tmp_path / "prm"
    shutil.copytree(checkpoints / "qwen2_prm", folder)
    with pytest.raises(ValueError, match="no <extra_0>"):
        prm.step_rewards(prm.load_prm(folder), "solve 3 :", ["3"])
    tokenizer = tokenizers.arithmetic_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": [prm.STEP_END]})
    tokenizer.save_pretrained(folder)
    model = prm.load_prm(folder)
    rewards = prm.step_rewards(model, "solve 3 8 :", ["3 + 8", "= 11"])
    assert rewards.shape == (2,) and ((rewards > 0) & (rewards < 1)).all()
    # A later step changes no earlier reward, and no text can end a step.
    np.testing.assert_allclose(
        prm.step_rewards(model, "solve 3 8 :", ["3 + 8"]), rewards[:1], atol=1e-5
    )
    assert prm.step_rewards(model, "solve 3 :", [f"3 {prm.STEP_END} 4"]).shape == (1,)
    with pytest.raises(ValueError, match="at least one text"):
        prm.step_rewards(model, "solve 3 :", [])


def test_each_loader_refuses_the_other_kind(checkpoints):
    with pytest.raises(ValueError, match="process reward model, which makes no text"):
        policies.load_policy(checkpoints / "qwen2_prm")
    with pytest.raises(ValueError, match="is a LlamaForCausalLM, not a Qwen2ForProcessReward"):
        prm.load_prm(checkpoints / "llama3")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"architectures": ["GptOssForCausalLM"]},
            "architectures = GptOssForCausalLM: must be one",
        ),
        ({"architectures": None}, "architectures = none"),
        ({"model_type": "qwen2"}, "model_type = 'qwen2': does not go with the architecture"),
        ({"quantization_config": {"bits": 4}}, "quantization_config = .*not supported"),
        ({"attention_bias": True}, "attention_bias = True: not supported; only False"),
        ({"use_sliding_window": True}, "use_sliding_window = True: not supported"),
        ({"layer_types": ["sliding_attention"]}, "'sliding_attention' is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu': not supported; only 'silu'"),
        ({"logit_scale": 0.5}, "logit_scale = 0.5: unknown, and it might change the result"),
        ({"hidden_size": None}, "hidden_size: missing"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type = 'longrope': must be one of"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters: factor: missing"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor = 0.5",
        ),
    ],
)
def test_what_would_change_the_result_is_an_error(damaged, fields, said):
    edit(damaged, **fields)
    with pytest.raises(ValueError, match=said) as error:
        policies.load_policy(damaged)
    assert "config.json: " in str(error.value)


def test_all_bad_fields_come_in_one_error(damaged):
    edit(damaged, hidden_act="gelu", mlp_bias=True, rope_parameters={"rope_type": "dynamic"})
    with pytest.raises(ValueError) as error:
        policies.load_policy(damaged)
    for text in ("hidden_act", "mlp_bias", "rope_type = 'dynamic'"):
        assert text in str(error.value)


def test_what_is_switched_off_is_no_error(damaged):
    edit(damaged, use_mrope=False, tie_word_embeddings=False, quantization_config=None, _name="x")
    policies.load_policy(damaged)


def test_all_tensors_that_do_not_fit_come_in_one_error(damaged):
    path = damaged / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    del tensors["model.norm.weight"]
    tensors["model.norm.bias"] = np.zeros(3, np.float32)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:7]
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = np.zeros(tensors[name].shape, np.int8)
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(ValueError) as error:
        policies.load_policy(damaged)
    for text in (
        "model.norm.weight: missing",
        "model.norm.bias: the model has no such tensor",
        "lm_head.weight: shape (7, 16), the model needs (128, 16)",
        f"{name}: dtype I8, must be one of F32, BF16, F16",
    ):
        assert text in str(error.value)


def test_damaged_and_missing_files_are_named(damaged, checkpoints, tmp_path):
    whole = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="model.safetensors: is damaged"):
        policies.load_policy(damaged)
    (damaged / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="neither model.safetensors nor"):
        policies.load_policy(damaged)
    (damaged / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer.json"):
        policies.load_policy(damaged)
    (damaged / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object, not a list"):
        policies.load_policy(damaged)
    shards = tmp_path / "shards"
    shutil.copytree(checkpoints / "qwen3", shards)
    next(shards.glob("model-00002-of-*")).unlink()
    with pytest.raises(FileNotFoundError, match="names files that are missing: model-00002-of-"):
        policies.load_policy(shards)
    shutil.copy(next(shards.glob("model-00001-of-*")), shards / "model-00002-of-00003.safetensors")
    with pytest.raises(ValueError, match="model-00002-of-00003.safetensors: lacks model"):
        policies.load_policy(shards)
    (shards / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="is no index of safetensors files"):
        policies.load_policy(shards)


def test_a_tied_head_may_be_stored_too_if_it_is_the_embedding(checkpoints, tmp_path):
    folder = tmp_path / "qwen2"
    shutil.copytree(checkpoints / "qwen2", folder)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    policies.load_policy(folder)
    tensors["lm_head.weight"][5, 5] += 1
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="differs from the embedding, but tie_word_embeddings"):
        policies.load_policy(folder)


def test_heads_that_guess_several_tokens_are_left_out(checkpoints, tmp_path):
    for case, left_out in (("qwen3_next", True), ("llama3", False)):
        shutil.copytree(checkpoints / case, tmp_path / case)
        path = tmp_path / case / "model.safetensors"
        tensors = safetensors.numpy.load_file(path)
        tensors["mtp.fc.weight"] = np.zeros((16, 32), np.float32)
        safetensors.numpy.save_file(tensors, path)
        if left_out:
            assert "mtp" not in policies.load_policy(tmp_path / case).params
            continue
        with pytest.raises(ValueError, match="mtp.fc.weight: the model has no such tensor"):
            policies.load_policy(tmp_path / case)


def test_several_files_hold_what_one_would(checkpoints, tmp_path):
    policy = policies.load_policy(checkpoints / "qwen3_moe")
    convert.write(tmp_path, policy.config, jax.device_get(policy.params), shard_bytes=4000)
    sizes = [path.stat().st_size for path in tmp_path.glob("model-*.safetensors")]
    assert len(sizes) > 3 and max(sizes) < 8000  # the embedding alone is 4096 bytes, headers aside
    shapes = transformer.param_shapes(policy.config)
    with convert.open_weights(tmp_path) as tensors:
        read = convert.read(
            tensors, policy.config, shapes, None, architecture="Qwen3MoeForCausalLM"
        )
    jax.tree.map(np.testing.assert_array_equal, read, policy.params)


@pytest.mark.parametrize("case", CASES)
def test_a_config_comes_back_from_its_fields(case):
    fields = json.loads((GOLDEN / case / "config.json").read_text())
    config = families.model_config(fields)
    assert families.model_config(families.config_fields(config)) == config
    with pytest.raises(ValueError, match="no architecture of transformers"):
        families.config_fields(
            transformer.ModelConfig(8, 1, 4, 1, 1, 4, 4, qk_norm=True, qkv_bias=True)
        )


def test_the_older_form_of_rope_settings_is_read():
    fields = json.loads((GOLDEN / "qwen3_yarn" / "config.json").read_text())
    expected = families.model_config(fields)
    record = fields.pop("rope_parameters")
    theta, kind = record.pop("rope_theta"), record.pop("rope_type")
    older = fields | {"rope_theta": theta, "rope_scaling": record | {"type": kind}}
    assert families.model_config(older) == expected
    scaling = expected.rope_scaling
    assert scaling.attention_factor == pytest.approx(0.1 * np.log(4) + 1)
    mscale = record | {"rope_type": "yarn", "mscale": 1.0, "mscale_all_dim": 1.0}
    older = families.model_config(fields | {"rope_scaling": mscale})
    assert older.rope_scaling.attention_factor == 1.0


def test_long_wavelengths_are_stretched_and_short_ones_kept():
    plain = 100.0 ** -(np.arange(0, 16, 2) / 16)
    for scaling in (
        RopeScaling("llama3", 8.0, 32, low=1.0, high=4.0),
        RopeScaling("yarn", 8.0, 32, low=1.0, high=4.0),
    ):
        ratio = rope.scaled_frequencies(100.0, 16, scaling) / plain
        assert ratio[0] == pytest.approx(1.0)
        assert ratio[-1] == pytest.approx(1 / 8)
        assert (np.diff(ratio) <= 1e-6).all() and ((ratio > 0.13) & (ratio < 0.99)).any()
    with pytest.raises(ValueError, match="rope kind 'ntk'"):
        RopeScaling("ntk", 2.0)
    with pytest.raises(ValueError, match="factor = 0.5: must be >= 1"):
        RopeScaling("linear", 0.5)


def test_the_command_line_exports(checkpoints, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["export", str(checkpoints / "qwen2"), str(out), "--param_dtype=float32"]) == 0
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "float32"
    assert capsys.readouterr().out.strip() == str(out)
    assert cli.main(["export", "tiny", str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err
