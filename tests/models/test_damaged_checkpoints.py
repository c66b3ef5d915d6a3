"""Damaged and hostile checkpoints: one clear error with file, field and value, soon; nothing from outside is read."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import time

import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import plan
from jaxrl_reason.models import json_files
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as tokenizers

GOLDEN = pathlib.Path(__file__).parent / "golden"
INDEX = "model.safetensors.index.json"
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pathlib.Path:
    """Checkpoints with tokenizers: of one file, of several, of experts."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name in ("llama3", "qwen3", "qwen3_moe", "qwen3_next"):
        shutil.copytree(GOLDEN / name, root / name)
        tokenizers.save(tokenizers.arithmetic_tokenizer(), root / name)
    return root


@pytest.fixture
def take(whole, tmp_path):
    """A copy of a checkpoint, to be damaged."""
    return lambda name="qwen3": shutil.copytree(whole / name, tmp_path / name)


def edit(folder: pathlib.Path, file: str, **fields) -> None:
    path = folder / file
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(found | fields))


def refusal(folder: pathlib.Path) -> str:
    """What is said of a folder that cannot be loaded; ValueError alone will do."""
    start = time.process_time()
    with pytest.raises(ValueError) as raised:
        policies.load_policy(folder)
    assert time.process_time() - start < 5
    assert len(str(raised.value)) < 20_000
    return str(raised.value)


@pytest.mark.parametrize(
    "content",
    [b"[]", b"3", b"null", b'"text"', b"", b"{", b"\xff\xfe\x00\x01", b'{"a": "\xff"}', DEEP.encode()]
    + [b'{"a": ' + DEEP.encode(), b"1" * 10_000],
    ids=["list", "int", "null", "text", "empty", "cut", "binary", "latin", "deep", "deeper", "long"],
)  # fmt: skip
@pytest.mark.parametrize(
    "file",
    ["config.json", "generation_config.json", INDEX, "tokenizer.json", "tokenizer_config.json"]
    + ["special_tokens_map.json", "added_tokens.json", "chat_template.json"],
)
def test_files_that_hold_no_object(take, file, content):
    folder = take()
    (folder / file).write_bytes(content)
    assert f"{folder / file}: " in refusal(folder)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hidden_size": 64.5}, "hidden_size = 64.5: must be an integer from 1 to 1048576"),
        ({"hidden_size": "64"}, "hidden_size = '64': must be an integer"),
        ({"vocab_size": 10**12}, "vocab_size = 1000000000000: must be an integer from 1 to 16777216"),
        ({"vocab_size": True}, "vocab_size = True: must be an integer"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000: must be an integer from 1 to"),
        ({"num_hidden_layers": 9999}, "asks for 109991 tensors, there are 2.*num_hidden_layers = 9999"),
        ({"num_hidden_layers": [2]}, r"num_hidden_layers = \[2\]: must be an integer"),
        ({"num_hidden_layers": -1}, "num_hidden_layers = -1: must be"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0: must be"),
        ({"intermediate_size": 10**300}, "intermediate_size = 10+"),
        ({"head_dim": {}}, "head_dim = {}: must be an integer"),
        ({"max_position_embeddings": "long"}, "max_position_embeddings = 'long': must be"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps = 'small': must be a number"),
        ({"rope_theta": []}, r"rope_theta = \[\]: must be a number"),
        ({"rope_theta": float("nan")}, "rope_theta = nan: must be a number"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings = 'yes': must be true or false"),
        ({"rope_scaling": [1]}, r"rope_scaling = \[1\]: must be an object"),
        ({"rope_parameters": {"rope_type": 3}}, "rope_parameters.rope_type = 3: must be a text"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "x"}}, "rope_parameters.factor = 'x'"),
        ({"layer_types": "full_attention"}, "layer_types = 'full_attention': must be a list"),
        ({"layer_types": [[]]}, "layer_types = .*: must be a list of texts"),
        ({"architectures": 3}, "architectures = 3: must be one of"),
        ({"architectures": [{}]}, "architectures = .*: must be one of"),
        ({"model_type": ["qwen3"]}, "model_type = .*: must be a text"),
        ({"mystery": "x" * 10**6}, "mystery = 'xxx.*unknown"),
        ({"eos_token_id": "x"}, "eos_token_id = 'x': must be an id or a list of them"),
        ({"eos_token_id": [1, "x"]}, "eos_token_id = .*must be an id"),
        ({"eos_token_id": 2.0}, "eos_token_id = 2.0: must be an id"),
        ({"eos_token_id": {"a": 1}}, "eos_token_id = .*must be an id"),
        ({"pad_token_id": "x"}, "pad_token_id = 'x': must be an id"),
    ],
)  # fmt: skip
def test_fields_of_another_kind(take, fields, said):
    folder = take()
    edit(folder, "config.json", **fields)
    message = refusal(folder)
    assert re.search(said, message), message
    assert str(folder) in message
    if "token_id" in said:
        shutil.copy(GOLDEN / "qwen3" / "config.json", folder)
        edit(folder, "generation_config.json", **fields)
        assert "generation_config.json: " in refusal(folder)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("qwen3_moe", {"num_experts": 10**6}),
        ("qwen3_moe", {"num_experts": 60_000, "num_hidden_layers": 9000}),
        ("qwen3_moe", {"num_experts_per_tok": "all"}),
        ("qwen3_moe", {"norm_topk_prob": 1}),
        ("qwen3_next", {"num_hidden_layers": 10_000, "layer_types": None}),
        ("qwen3_next", {"linear_num_key_heads": 1.5}),
        ("qwen3_next", {"full_attention_interval": "4", "layer_types": None}),
    ],
)
def test_fields_of_experts_and_states(take, name, fields):
    folder = take(name)
    edit(folder, "config.json", **fields)
    (field, *_) = fields
    assert field in refusal(folder)


def test_the_plan_reads_config_json_the_same_way(take):
    config = config_lib.recipe("gspo")
    folder = take()
    for content, said in ((DEEP, "is not JSON"), ('{"architectures": 3}', "architectures = 3")):
        (folder / "config.json").write_text(content)
        config.model.source = str(folder)
        with pytest.raises(ValueError, match=said):
            plan.plan(
                config,
                device="cpu-host" if "cpu-host" in plan.DEVICES else next(iter(plan.DEVICES)),
                num_devices=1,
            )


@pytest.mark.parametrize(
    "value", [[], 3, None, "x", {"model.norm.weight": 3}, {"a": []}, {"a": ""}]
)
def test_an_index_of_another_kind(take, value):
    folder = take()
    edit(folder, INDEX, weight_map=value)
    assert f"{INDEX}: " in refusal(folder)


@pytest.mark.parametrize("way", ["../{}", "{home}/{}", "sub/../../{}", "./{}", "..", ".", "a\0b"])
def test_an_index_names_no_file_elsewhere(take, way, tmp_path):
    folder = take()
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    file = next(iter(weight_map.values()))
    shutil.copy(folder / file, tmp_path / file)
    named = {name: way.format(file, home=tmp_path) for name in weight_map}
    edit(folder, INDEX, weight_map=named)
    assert "must be the name of a file in this folder" in refusal(folder)


@pytest.mark.parametrize("name", ["qwen3", "llama3"])
def test_links_lead_nowhere_else(take, name, tmp_path):
    folder = take(name)
    file = sorted(folder.glob("*.safetensors"))[0]
    file.rename(tmp_path / "elsewhere.safetensors")
    file.symlink_to(tmp_path / "elsewhere.safetensors")
    assert "outside of this folder" in refusal(folder)
    # The cache of the hub is made of links to what lies beside its snapshots.
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots"
    shutil.copytree(folder, snapshot / "0123", symlinks=True)
    blobs.mkdir()
    (tmp_path / "elsewhere.safetensors").rename(blobs / "hash")
    (snapshot / "0123" / file.name).unlink()
    (snapshot / "0123" / file.name).symlink_to("../../blobs/hash")
    assert policies.load_policy(snapshot / "0123").config.num_layers >= 1
    # So may a folder as a whole be a link.
    (tmp_path / "link").symlink_to(snapshot / "0123")
    assert policies.load_policy(tmp_path / "link").config.num_layers >= 1


def test_gguf_is_named(tmp_path):
    (tmp_path / "model-Q4_K_M.gguf").write_bytes(b"GGUF")
    for source in (tmp_path, tmp_path / "model-Q4_K_M.gguf"):
        with pytest.raises(FileNotFoundError, match="GGUF is not read; take the checkpoint"):
            policies.load_policy(source)
    shutil.copy(GOLDEN / "qwen3" / "config.json", tmp_path)
    tokenizers.save(tokenizers.arithmetic_tokenizer(), tmp_path)
    with pytest.raises(FileNotFoundError, match="GGUF is not read; take the checkpoint"):
        policies.load_policy(tmp_path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"d_model": 64.5}, "d_model = 64.5: must be an integer"),
        ({"num_layers": 10**9}, r"does not fit model.json.*\(1000000000, 64\)"),
        ({"vocab_size": "x"}, "vocab_size = 'x'"),
        ({"tied": "yes"}, "tied = 'yes': must be true or false"),
        ({"experts": [1]}, r"experts = \[1\]: must be an object"),
        ({"experts": {"num_experts": 4}}, "experts.top_k: missing"),
        ({"lora": {"rank": "8", "alpha": 1.0, "targets": []}}, "lora.rank = '8'"),
        ({"lora": {"rank": 8, "alpha": 1.0, "targets": 3}}, "model.json"),
    ],
)
def test_a_policy_of_our_own_is_read_as_carefully(tmp_path, fields, said):
    policies.save_policy(tmp_path / "policy", policies.load_policy("tiny"))
    edit(tmp_path / "policy", "model.json", **fields)
    message = refusal(tmp_path / "policy")
    assert re.search(said, message, re.DOTALL) and "model.json" in message


def test_a_file_may_not_be_endless(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MOST_BYTES", 100)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["x" * 100]}))
    assert "config.json: has more than" in refusal(tmp_path)
