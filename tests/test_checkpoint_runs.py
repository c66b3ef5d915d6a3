"""From a Hugging Face folder through training back to one."""

from __future__ import annotations

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from jaxrl_reason import cli, sharding, train
from jaxrl_reason import config as config_lib
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as tokenizers

GOLDEN = pathlib.Path(__file__).parent / "models" / "golden"
STOPS = (112, 105)  # EOS, and a word of the format
CHANGES = {
    "task.length": 2,
    "task.modulus": 5,
    "rollout.num_prompts": 4,
    "rollout.group_size": 2,
    "optim.microbatch_rows": 8,
    "optim.learning_rate": 0.01,
    "eval.num_problems": 8,
    "eval.every": 0,
    "train.num_updates": 1,
    "train.tensorboard": False,
    "loss.entropy_coef": 0.1,  # rewards of random weights teach nothing
}


@pytest.mark.slow
def test_a_checkpoint_is_trained_and_exported(tmp_path):
    start, out = tmp_path / "start", tmp_path / "out"
    shutil.copytree(GOLDEN / "qwen2", start)
    tokenizers.arithmetic_tokenizer().save_pretrained(start)
    settings = json.loads((start / "generation_config.json").read_text())
    settings["eos_token_id"] = list(STOPS)
    (start / "generation_config.json").write_text(json.dumps(settings))
    values = CHANGES | {"model.source": start, "run_dir": tmp_path / "run"}
    config = config_lib.override(config_lib.recipe("gspo"), [f"{k}={v}" for k, v in values.items()])
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    run, state = train.train(config, mesh=mesh)
    assert int(state.num_updates) == 1
    # Master weights are float32, whatever the checkpoint has; its stop tokens go along.
    trained = policies.load_policy(run)
    assert trained.config.param_dtype == "float32"
    assert tokenizers.stop_ids(trained.tokenizer) == STOPS
    assert cli.main(["export", str(run), str(out), "--param_dtype=bfloat16"]) == 0
    again = policies.load_policy(out)
    assert tokenizers.stop_ids(again.tokenizer) == STOPS
    for one, two in zip(*(jax.tree.leaves(p.params) for p in (trained, again)), strict=True):
        np.testing.assert_array_equal(one.astype("bfloat16"), two)
    before = policies.load_policy(start).params["layers"]["mlp"]["down"]
    assert (before != again.params["layers"]["mlp"]["down"]).any()
