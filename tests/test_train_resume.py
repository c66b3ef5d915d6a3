"""What the messages of a run advise can be done: a resumed run with other settings, and what is said about it."""

from __future__ import annotations

import json
import math

import jax
import numpy as np
import pytest

from jaxrl_reason import compare, evaluate, metrics
from jaxrl_reason.tasks import maths
from tests.test_train_stops import make_config, run

NO_EVALUATION = {"eval__every": 0, "eval__num_problems": 4}


def test_an_absurd_learning_rate_is_lowered_on_resume(tmp_path, capsys):
    changes = NO_EVALUATION | {"train__checkpoint_every": 1, "train__num_updates": 2}
    with pytest.raises(FloatingPointError) as caught:
        run(make_config("gspo", tmp_path / "run", optim__learning_rate=1e30, **changes))
    said = str(caught.value)
    # Parameters of 1e30: their norm overflows. They are not saved, so that the checkpoint is the start's.
    assert "update 1: not finite: " in said and "policy/param_norm" in said
    assert f"Last good checkpoint: {tmp_path}/run/checkpoints/0. Lower optim.learning_rate" in said
    assert "go on with --resume" in said
    capsys.readouterr()
    config = make_config("gspo", tmp_path / "run", optim__learning_rate=1e-4, **changes)
    folder, state = run(config, resume=True)
    assert int(state.num_updates) == 2
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    assert "optim.learning_rate: saved 1e+30, now 0.0001" in capsys.readouterr().out
    assert [line["update"] for line in metrics.read_metrics(folder / "metrics.jsonl")] == [0, 1, 2]


def broken_after(update: int):
    """Spoils the parameters in one update, finite as they still are in its own figures."""

    def spoil(state, batch, update_fn):
        state, results = update_fn(state, batch)
        if int(state.num_updates) == update:
            params = dict(state.params, embedding=state.params["embedding"] * math.nan)
            state = state._replace(params=params)
        return state, results

    return spoil


def spoiling(config, update: int):
    from jaxrl_reason import parts, sharding

    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    made = parts.make_run(config, mesh=mesh)
    update_fn = parts.make_update(made, parts.make_optimizer(made))
    spoil = broken_after(update)
    return lambda state, batch: spoil(state, batch, update_fn)


@pytest.mark.slow
@pytest.mark.parametrize(("update", "keep", "good"), [(1, 2, 0), (1, 1, None), (0, 2, None)])
def test_the_checkpoint_of_a_broken_policy_is_never_called_good(tmp_path, update, keep, good):
    changes = NO_EVALUATION | {"train__checkpoint_every": 1, "train__keep_checkpoints": keep}
    config = make_config("gspo", tmp_path / "run", **changes)
    options = {"update_fn": spoiling(config, update)}
    if update == 0:  # the policy that the run starts from
        from jaxrl_reason.models import policy as policies

        _, state = run(make_config("gspo", tmp_path / "start", **changes, train__num_updates=1))
        start = policies.load_policy(tmp_path / "start" / "policy")
        start.params["embedding"] = start.params["embedding"] * math.nan
        options = {"policy": start}
    with pytest.raises(FloatingPointError) as caught:
        run(config, **options)
    said = str(caught.value)
    assert f"nonfinite_checkpoint_{update}" in said
    assert (tmp_path / "run" / f"nonfinite_checkpoint_{update}").is_dir()
    if good is None:
        assert "None is left to go on from" in said
        assert "--resume" not in said
        return
    assert f"Last good checkpoint: {tmp_path}/run/checkpoints/{good}." in said
    _, state = run(
        make_config("gspo", tmp_path / "run", optim__learning_rate=1e-4, **changes), resume=True
    )
    assert int(state.num_updates) == 3


def test_a_small_data_set_is_evaluated_once_in_the_loop(tmp_path):
    path = tmp_path / "data.jsonl"
    lines = [json.dumps({"question": f"What is {i} + 1?", "answer": str(i + 1)}) for i in range(30)]
    path.write_text("\n".join(lines) + "\n")
    config = make_config("gspo", tmp_path / "run", eval__num_problems=512)
    task = maths.Maths(path)
    problems = evaluate.evaluation_problems(evaluate.whole_task(task), config.eval)
    assert len({p.id for p in problems}) == len(problems) <= 30
    config.eval.num_problems = 3
    assert len(evaluate.evaluation_problems(evaluate.whole_task(task), config.eval)) == 3


@pytest.mark.slow
def test_compare_goes_on_only_with_the_config_that_its_runs_began_with(tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(
        "from tests.test_train_stops import make_config\n"
        "def get_config():\n    return make_config('gspo', 'unused')\n"
    )
    out = tmp_path / "out"
    options = {"seeds": 1, "tokens": 60, "workers": 0}
    compare.compare([config], out, **options)
    before = (out / "mine" / "seed0" / "metrics.jsonl").read_bytes()
    compare.compare([config], out, **options, overrides=["train.log_rollouts=1"])
    with pytest.raises(ValueError, match=r"optim.learning_rate: saved 0.01, now 0.5") as caught:
        compare.compare([config], out, **options, overrides=["optim.learning_rate=0.5"])
    assert str(out / "mine" / "seed0" / "config.json") in str(caught.value)
    assert (out / "mine" / "seed0" / "metrics.jsonl").read_bytes() == before
