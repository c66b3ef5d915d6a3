"""A checkpoint with a chat template goes through a whole run and back: IOP on adapters, GSPO on all weights."""

from __future__ import annotations

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from jaxrl_reason import checkpoint, metrics, parts, sharding, train
from jaxrl_reason import config as config_lib
from jaxrl_reason.models import convert, lora, transformer
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as tokenizers
from tests.models import chat

RECORDS = [
    {"question": "Ann has 3 pens, buys 4. How many?", "answer": "3+4=<<3+4=7>>7\n#### 7"},
    {"question": "Two cups cost 10. What costs one?", "answer": "10/2=<<10/2=5>>5\n#### 5"},
]
RUN = {
    "task.name": "gsm8k",
    "rollout.num_prompts": 2,
    "rollout.group_size": 2,
    "rollout.max_new_tokens": 8,
    "rollout.chunk_rows": 4,
    "model.prompt_format": "chat",
    "model.enable_thinking": False,
    # A policy with random weights is right nowhere: references are the anchors, failures are trained as negatives.
    "iop.reference_anchor": True,
    "iop.unrepaired": "outcome",
    "iop.num_repairs": 2,
    "iop.repair_rows": 4,
    # Equal rewards teach GSPO nothing; these two terms do.
    "loss.entropy_coef": 0.1,
    "loss.kl_coef": 0.1,
    "optim.learning_rate": 0.01,
    "optim.microbatch_rows": 4,
    "eval.num_problems": 2,
    "eval.num_samples": 2,
    "eval.every": 0,
    "train.num_updates": 2,
    "train.checkpoint_every": 1,
    "train.keep_checkpoints": 5,
    "train.tensorboard": False,
}


def make_source(folder: pathlib.Path, data: pathlib.Path, seed: int) -> None:
    """A random Qwen3 with a chat tokenizer, as a Hugging Face folder."""
    tokenizer = chat.make_tokenizer([data.read_text()], 300)
    tokenizers.adopt_settings(tokenizer, {"eos_token_id": [len(tokenizer) - 3]})
    config = transformer.ModelConfig(
        300, num_layers=1, d_model=16, num_heads=2, num_kv_heads=1, head_dim=8, d_ff=16
    )
    params = transformer.init_params(config, jax.random.key(seed))
    apply = policies._make_apply(config, None)
    policies.export_policy(folder, policies.Policy(config, params, tokenizer, apply))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    make_source(folder / "model", folder / "train.jsonl", seed=0)
    return folder


def make_config(method: str, source: pathlib.Path, folder: pathlib.Path, rank: int):
    own = {
        "run_dir": folder,
        "model.source": source / "model",
        "task.path": source / "train.jsonl",
        "lora.rank": rank,
    }
    return config_lib.override(
        config_lib.recipe(method), [f"{k}={v}" for k, v in (RUN | own).items()]
    )


def one_device() -> jax.sharding.Mesh:
    return sharding.make_mesh(config_lib.base().mesh, jax.devices()[:1])


def equal(one, two) -> bool:
    pairs = zip(convert.flat(one), convert.flat(two), strict=True)
    return all(a == b and np.array_equal(x, y) for (a, x), (b, y) in pairs)


def run_and_export(config, folder: pathlib.Path):
    """(state, parts of the run, trained policy, that one exported and loaded again)."""
    run_folder, state = train.train(config, mesh=one_device())
    trained = policies.load_policy(run_folder)
    policies.export_policy(folder / "exported", trained)
    run = parts.make_run(config, mesh=one_device())
    return state, run, trained, policies.load_policy(folder / "exported")


def check_run(run, trained, exported) -> None:
    """Prompts were chats, every line is finite, weights moved, and what was exported is what was trained."""
    lines = metrics.read_metrics(run.folder / "metrics.jsonl")[1:]
    assert len(lines) == 2
    assert all(abs(line["mismatch/prob_error"] - 1) < 1e-4 for line in lines)
    assert max(line["policy/grad_norm"] for line in lines) > 0
    prompt = run.policy.tokenizer.decode(run.prompts.policy(run.task.problems[0]))
    assert prompt.startswith("<|im_start|>user\nQuestion: Ann has")
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    tokens = np.asarray([run.prompts.policy(run.task.problems[0])])
    first, last, out = (
        np.asarray(p.apply(p.params, tokens, tokens >= 0)) for p in (run.policy, trained, exported)
    )
    assert np.abs(last - first).max() > 1e-3
    np.testing.assert_allclose(out, last, atol=1e-5)
    assert exported.tokenizer.chat_template == run.policy.tokenizer.chat_template
    assert tokenizers.stop_ids(exported.tokenizer) == tokenizers.stop_ids(run.policy.tokenizer)


@pytest.mark.slow
def test_gspo_trains_all_weights(source, tmp_path):
    config = make_config("gspo", source, tmp_path / "run", rank=0)
    state, run, trained, exported = run_and_export(config, tmp_path)
    assert equal(state.params, trained.params)
    check_run(run, trained, exported)


@pytest.mark.slow
def test_iop_trains_adapters_alone_and_resumes_bitwise(source, tmp_path):
    copy = tmp_path / "source"
    shutil.copytree(source, copy)
    config = make_config("iop", copy, tmp_path / "run", rank=2)
    state, run, trained, exported = run_and_export(config, tmp_path)
    check_run(run, trained, exported)
    base = lora.split(run.policy.params)[0]
    assert equal(lora.split(trained.params)[0], base)
    assert equal(lora.split(trained.params)[1], state.params)
    names = [name for name, _ in convert.flat(state.params)]
    assert len(names) == 14 and all("_lora_" in name for name in names)
    moments = {x.size for x in jax.tree.leaves(state.opt_state) if x.size > 1}
    assert moments == {x.size for x in jax.tree.leaves(state.params)}
    # The reference shares the base with the policy.
    assert parts.whole_params(run, state.params)["embedding"] is run.policy.params["embedding"]

    shutil.rmtree(run.folder / "checkpoints" / "2")
    _, resumed = train.train(config, writers=[], mesh=one_device(), resume=True)
    assert equal(resumed.params, state.params) and equal(
        policies.load_policy(run.folder).params, trained.params
    )

    shutil.rmtree(copy / "model")
    make_source(copy / "model", copy / "train.jsonl", seed=1)
    with pytest.raises(checkpoint.CheckpointError, match="trained on other weights"):
        train.train(config, writers=[], mesh=one_device(), resume=True)
