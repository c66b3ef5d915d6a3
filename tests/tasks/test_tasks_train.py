"""Every task goes through an update of GSPO: problems, samples, verdicts, rows, loss, new state.

Host side; drives the device. Reads: files it wrote. Writes: a temporary folder.
"""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import parts, sharding, tasks, timing, train
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as tokenizers

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
# One shape for all, so that each program is compiled once.
SMALL = (
    *("rollout.num_prompts=2", "rollout.group_size=2", "rollout.chunk_rows=4"),
    *("rollout.prompt_length=448", "rollout.max_new_tokens=8", "optim.microbatch_rows=4"),
    *("task.verify_workers=1", "loss.old_logprobs=behavior"),
)


@pytest.fixture(scope="module")
def shared():
    """Policy, and one run with its compiled parts, whose task is replaced."""
    policy = policies.load_policy("tiny", tokenizer=tokenizers.make_tokenizer("byte"))
    return {"policy": policy}


def _config(name, folder):
    if name in ("countdown", "knights"):
        return config_lib.load(CONFIGS / f"gspo_{name}_bytes.py", SMALL)
    rows = [{"question": f"{i} + {i}?", "answer": f"so\n#### {2 * i}"} for i in range(5)]
    for stem, part in (("train", rows[:3]), ("test", rows[3:])):
        (folder / f"{stem}.jsonl").write_text("\n".join(map(json.dumps, part)))
    changes = [f"task.path={folder}/train.jsonl", f"task.eval_path={folder}/test.jsonl"]
    config = config_lib.recipe("gspo")
    config_lib.override(config, [f"task.name={name}", *changes[: 2 * (name != "game24")], *SMALL])
    return config_lib.validate(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["countdown", "knights", "math", "gsm8k", "game24"])
def test_one_update(name, shared, tmp_path):
    config = _config(name, tmp_path)
    task = tasks.make_task(config.task)
    if "run" not in shared:
        mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
        run = parts.make_run(config, task=task, policy=shared["policy"], mesh=mesh)
        optimizer = parts.make_optimizer(run)
        shared |= {"run": run, "optimizer": optimizer, "update": parts.make_update(run, optimizer)}
    prompts, _ = parts.make_prompts(config, task, shared["policy"].tokenizer)
    changes = dict(config=config, folder=tmp_path, task=task, prompts=prompts)
    run = dataclasses.replace(shared["run"], **changes)
    stages = parts.bind_stages(
        run, run.policy.params, jax.random.key(0), task.verify, timing.Clock()
    )
    groups, sampled = train.collect(run, stages, 0)
    # A random policy is right by no luck worth waiting for: one completion is made right, so that there is a gradient.
    right = groups[0].verdicts[0].__class__(1.0, groups[0].problem.answer, "correct")
    groups[0] = groups[0].__class__(
        groups[0].problem, groups[0].prompt, groups[0].completions, (right, *groups[0].verdicts[1:])
    )  # fmt: skip
    built = run.method.build(groups, stages, np.random.default_rng(0))
    state = parts.first_state(run, shared["optimizer"])
    batch = parts.place_batch(run, parts.to_batch(run, built.rows))
    before = jax.tree.leaves(jax.tree.map(np.asarray, state.params))
    state, results = shared["update"](state, batch)
    assert sampled["reward/mean"] == 0 and sampled["verifier/timeout_frac"] == 0
    assert int(state.num_updates) == 1 and float(results["policy/grad_norm"]) > 0
    assert any((a != b).any() for a, b in zip(before, jax.tree.leaves(state.params), strict=True))
