"""Training of a process reward model: rows and labels, a model that learns, its record, and its use in training."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import types

import jax
import numpy as np
import optax
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import metrics, parts, prm_training, sharding, solutions, train
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import prm as prms
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.models import transformer
from jaxrl_reason.verify import step_labels

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
SMALL = (
    *("task.length=3", "task.modulus=5", "rollout.group_size=4", "rollout.chunk_rows=16"),
    *("rollout.num_prompts=4", "optim.microbatch_rows=16", "mesh.data=1"),
)


@pytest.fixture(scope="module")
def policy() -> policies.Policy:
    """One layer."""
    tokenizer = tokenizers.arithmetic_tokenizer()
    config = dataclasses.replace(
        transformer.PRESETS["tiny"], num_layers=1, d_model=16, d_ff=16, vocab_size=len(tokenizer)
    )
    params = transformer.init_params(config, jax.random.key(0))
    return policies.Policy(config, params, tokenizer, lambda *_: None)


def mesh_of(num_devices: int) -> jax.sharding.Mesh:
    sizes = types.SimpleNamespace(data=1, fsdp=-1, tensor=1)
    return sharding.make_mesh(sizes, jax.devices()[:num_devices])


def rows_of(prm: prms.Prm, *labelled: step_labels.Labelled, **changes):
    settings = dict(max_tokens=12, hard_above=0.0, drop_after_error=True) | changes
    return prm_training.rows_of(prm, labelled, **settings)


def test_a_row_ends_with_its_last_label(policy):
    prm = prms.new_prm(policy, jax.random.key(0), step_end=";", chat=False)
    question = "solve 3 8 :"  # 5 tokens with BOS
    solution = step_labels.Labelled(question, ("1 2", "4", "= 4"), (1.0, 0.0, 0.0))
    (row,) = rows_of(prm, solution)
    # The step behind the error is dropped, and with it its text.
    assert row.ids == tokenizers.encode_prompt(policy.tokenizer, question + " 1 2 ; 4 ;")
    assert row.places == [7, 9] and row.values.tolist() == [1, 0]
    (kept,) = rows_of(prm, solution, drop_after_error=False, max_tokens=13)
    assert kept.places == [7, 9, 12] and kept.values.tolist() == [1, 0, 0]
    (short,) = rows_of(prm, solution, max_tokens=9)
    assert short.places == [7]
    assert rows_of(prm, solution, max_tokens=7) == []
    assert rows_of(prm, solution._replace(labels=(None, None, None))) == []
    batch = prm_training.pack([row, short], num_rows=3, width=12)
    assert batch.label_mask.sum(axis=1).tolist() == [2, 1, 0]
    assert batch.targets[batch.label_mask].tolist() == [1, 0, 1]
    assert not batch.token_mask[2].any() and batch.token_mask[0].sum() == 10


@pytest.mark.slow
def test_an_update_depends_on_no_split_and_no_padding(policy):
    solution = step_labels.Labelled("solve 3 8 :", ("1", "= 1"), (1.0, 0.0))
    other = step_labels.Labelled("solve 2 :", ("4",), (0.25,))
    optimizer = optax.sgd(0.1)

    def update(num_devices: int, micro: int, num_rows: int):
        mesh = mesh_of(num_devices)
        prm = prms.new_prm(policy, jax.random.key(0), step_end=";", chat=False, mesh=mesh)
        rows = rows_of(prm, solution, other, hard_above=None)
        batch = prm_training.pack(rows, num_rows=num_rows, width=12)
        function = prm_training.make_update(prm, optimizer, mesh=mesh, microbatch_rows=micro)
        placed = sharding.to_global(batch, sharding.batch_sharding(mesh))
        params, _, loss = function(prm.params, optimizer.init(prm.params), placed)
        return jax.device_get(params), float(loss)

    params, loss = update(1, 2, 2)
    # The head starts at 0: every P is 1/2, so that each of the three labels costs log 2.
    assert loss == pytest.approx(np.log(2), rel=1e-5)
    for split in ((8, 8, 16),):
        others, same = update(*split)
        assert same == pytest.approx(loss, rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, others)


def load(tmp_path, *changes) -> config_lib.ml_collections.ConfigDict:
    config = config_lib.base()
    return config_lib.override(config, [*SMALL, f"run_dir={tmp_path}/run", *changes])


@pytest.mark.slow
def test_a_model_learns_from_a_file_and_is_examined(policy, tmp_path):
    # Right steps are 1, wrong ones 0: what the model has to see is one token.
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(32):
        digits = rng.integers(2, size=3)
        steps = [str(d) for d in digits]
        record = {"prompt": "solve 3 :", "completions": steps, "labels": [bool(d) for d in digits]}
        lines.append(json.dumps(record))
    (tmp_path / "steps.jsonl").write_text("\n".join(lines))
    exam = [
        {"id": str(i), "problem": "solve 3 :", "steps": steps, "label": label}
        for i, (steps, label) in enumerate(
            [(["1", "0", "1"], 1), (["0"], 0), (["1", "1"], -1), (["1"], -1)]
        )
    ]
    (tmp_path / "exam.json").write_text(json.dumps(exam))
    config = load(
        tmp_path,
        *("prm.labels=trl", f"prm.path={tmp_path}/steps.jsonl", "prm.after_error=keep"),
        *("prm.updates=60", "prm.batch_rows=16", "prm.learning_rate=0.02"),
        *(f"prm.eval_path={tmp_path}/exam.json", "locate.prm_threshold=0.5"),
    )
    folder = prm_training.train_prm(config, policy=policy, mesh=mesh_of(1))
    losses = [
        line["prm/loss"]
        for line in metrics.read_metrics(tmp_path / "run" / "metrics.jsonl")
        if "prm/loss" in line
    ]
    assert len(losses) == 60 and losses[-1] < 0.1
    record = json.loads((folder / prms.EVALUATION_FILE).read_text())
    assert record["set"] == "exam.json" and record["scores"]["f1"] == 1
    assert record["f1_by_threshold"]["0.5"] == 1 and record["tokens_read"] > 0
    rewards = prms.step_rewards(prms.load_prm(folder), "solve 3 :", ["1", "0"])
    assert rewards[0] > 0.8 > 0.2 > rewards[1]
    with pytest.raises(FileExistsError, match="choose another"):
        prm_training.train_prm(config, policy=policy)


def test_labels_of_the_oracle_and_of_the_search_agree_where_the_policy_is_exact(
    policy, tmp_path, monkeypatch
):
    run = parts.make_run(load(tmp_path), policy=policy, mesh=mesh_of(1))
    wrong, right = "9 4 ; 3 ; = 3", "3 4 ; 2 ; = 2"  # 1 2 4 modulo 5: 3 4, 2
    problem = run.task.batch(0, 0, 1)[0]
    problem = dataclasses.replace(problem, prompt="1 2 4", answer="2")

    def sample(params, key, prompts, *, stage, num_samples, temperature, prefixes=None):
        texts = [right, wrong, "3 4 ; 9 ; = 4", "3 4 ; 2"]
        if prefixes is not None:  # solved from every right prefix, and from no other
            decoded = [run.engine.tokenizer.decode(p) for p in prefixes]
            texts = [right if right.startswith(d) else wrong for d in decoded]
            return [[completion(t)] * num_samples for t in texts]
        return [[completion(t) for t in texts] for _ in prompts]

    def completion(text):
        tokens = tuple(tokenizers.encode_completion(policy.tokenizer, text))
        return solutions.Completion(tokens, np.zeros(len(tokens), np.float32), text, False, 1)

    monkeypatch.setattr(run.engine, "sample", sample)
    monkeypatch.setattr(run.task, "batch", lambda *_: [problem])
    by_oracle = solutions.sample(run, 0, 4, by="oracle")
    assert [s.error for s in by_oracle] == [-1, 0, 1, 2]
    assert [s.correct for s in by_oracle] == [True, False, False, False]
    assert by_oracle[0].steps == ["3 4", "2", "= 2"]
    by_search = solutions.sample(run, 0, 4, by="monte_carlo")
    # The last one lacks its answer; from all that it shows, the policy would have gone on rightly.
    assert [s.error for s in by_search] == [-1, 0, 1, 1]
    records = solutions.exam(run, 0, 4, run.task.policy_prompt)
    assert [r.label for r in records] == [-1, 0, 1], "what lacks a step is no question of an exam"
    assert records[0].problem == "solve 1 2 4 :"


def test_what_cannot_be_labelled_or_read_is_refused(policy, tmp_path):
    with pytest.raises(ValueError, match="prm.path = ''"):
        config_lib.validate(load(tmp_path, "prm.labels=prm800k"))
    with pytest.raises(ValueError, match="locate.prm_path = ''"):
        config_lib.validate(config_lib.override(config_lib.recipe("vppo"), ["locate.kind=prm"]))
    config = load(tmp_path, "prm.step_end=nothing")
    with pytest.raises(ValueError, match="no nothing"):
        prm_training.train_prm(config, policy=policy, mesh=mesh_of(1))


@pytest.mark.slow
def test_a_resumed_run_with_a_reward_model_is_the_one_that_never_stopped(policy, tmp_path):
    prm = prms.new_prm(policy, jax.random.key(0), step_end=";", chat=False)
    prm.params["score"]["outer"] = jax.random.normal(jax.random.key(2), (16, 2))
    prms.save_prm(tmp_path / "prm", prm, {"f1_by_threshold": {"0.5": 0.9}})

    def run(name: str, updates: int, resume: bool = False):
        config = config_lib.load(
            CONFIGS / "vppo_prm_arithmetic.py",
            [
                *SMALL,
                *(f"run_dir={tmp_path}/{name}", f"locate.prm_path={tmp_path}/prm"),
                *(f"train.num_updates={updates}", "train.checkpoint_every=1", "eval.every=0"),
                *("eval.num_problems=2", "train.tensorboard=false"),
            ],
        )
        return train.train(config, policy=policy, mesh=mesh_of(1), resume=resume)

    _, whole = run("whole", 2)
    run("parts", 1)
    folder, resumed = run("parts", 2, resume=True)
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
    line = metrics.read_metrics(folder / "metrics.jsonl")[-1]
    assert line["process/locate_tokens"] > 0 and line["process/locate_generations"] == 0
    assert line["time/locate"] > 0
