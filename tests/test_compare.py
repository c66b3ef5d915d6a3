"""Comparing configs: what is drawn, what is said, and a whole comparison that is broken off and goes on."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest

from jaxrl_reason import compare, metrics, phases, sharding, train
from jaxrl_reason import config as config_lib
from jaxrl_reason.methods import outcome

SMALL = (
    "task.length=2",
    "task.modulus=5",
    "rollout.num_prompts=2",
    "rollout.group_size=4",
    "rollout.max_refills=0",
    "optim.microbatch_rows=8",
    "eval.num_problems=8",
    "eval.every=0",
    "train.tensorboard=False",
    "train.checkpoint_every=1",
)


def test_paired_bootstrap_pairs_seeds_and_problems():
    rng = np.random.default_rng(0)
    # Problems differ a lot, arms by 0.1: hidden without pairing.
    hardness = rng.random(200)
    theirs = np.stack([hardness, hardness])
    noise = 0.05 * rng.standard_normal((2, 200))
    mean, low, high, p = compare.paired_bootstrap(theirs + 0.1 + noise, theirs)
    assert low < mean < high and high - low < 0.05 and p < 0.001
    assert mean == pytest.approx(0.1, abs=0.02)
    mirrored = compare.paired_bootstrap(theirs, theirs + 0.1 + noise)
    assert mirrored[0] == pytest.approx(-mean)
    assert compare.paired_bootstrap(theirs, theirs) == (0.0, 0.0, 0.0, 1.0)


def test_paired_bootstrap_counts_the_spread_over_seeds():
    # Every problem the same: seeds alone decide. Means of three draws from (-1, 0, 1) lie within +-1.
    seeds = np.array([[-1.0], [0.0], [1.0]]) * np.ones((1, 400))
    mean, low, high, p = compare.paired_bootstrap(seeds, 0 * seeds)
    assert mean == 0 and low <= -2 / 3 and high >= 2 / 3 and p > 0.5
    with pytest.raises(ValueError, match="same seeds and problems"):
        compare.paired_bootstrap(seeds, seeds[:2])


def test_the_start_is_not_taken_for_a_result(tmp_path):
    (tmp_path / "eval").mkdir()
    record = {"problems": ["a", "b"], "num_samples": 4, "correct": [1, 2], "greedy": [0, 1]}
    (tmp_path / "eval" / "update_0.json").write_text(json.dumps(record))
    with pytest.raises(FileNotFoundError, match="after training"):
        compare.solved(tmp_path)
    (tmp_path / "eval" / "update_9.json").write_text(json.dumps(record | {"correct": [4, 2]}))
    assert compare.solved(tmp_path)[1].tolist() == [1.0, 0.5]


def write_config(path: pathlib.Path, body: str) -> pathlib.Path:
    path.write_text(f"from jaxrl_reason import config\n\n\ndef get_config():\n    {body}\n")
    return path


def test_configs_that_cannot_be_compared_are_refused(tmp_path):
    one = write_config(tmp_path / "one.py", "return config.recipe('grpo')")
    other = write_config(
        tmp_path / "other.py", "c = config.recipe('grpo'); c.task.modulus = 7; return c"
    )
    (tmp_path / "again").mkdir()
    again = write_config(tmp_path / "again" / "one.py", "return config.recipe('grpo')")
    for files, options, words in (
        ([one], {}, "no token budget"),
        ([one, other], {"tokens": 5}, "other: other token budget or other evaluation problems"),
        ([one, again], {"tokens": 5}, "different names"),
        ([one], {"tokens": 5, "seeds": 0}, "at least one seed"),
    ):
        with pytest.raises(ValueError, match=words):
            compare.compare(files, tmp_path / "out", workers=0, **options)
    assert not (tmp_path / "out").exists()


def test_the_budget_ends_a_run_unless_its_schedule_counts_updates(tmp_path):
    plain = write_config(tmp_path / "plain.py", "return config.recipe('grpo')")
    cosine = write_config(
        tmp_path / "cosine.py", "c = config.recipe('grpo'); c.optim.schedule = 'cosine'; return c"
    )
    both = write_config(
        tmp_path / "both.py",
        "return config.in_phases(config.recipe('srl'), config.recipe('grpo'))",
    )
    jobs = compare.make_jobs([plain, cosine, both], tmp_path, seeds=1, tokens=9, overrides=[])
    plain, cosine, both = (compare.job_config(arm[0]) for arm in jobs.values())
    assert plain.train.num_updates > 10**5
    assert cosine.train.num_updates == 100
    first, second = config_lib.phases(both)
    assert first.train.num_updates == 100 and second.train.num_updates > 10**5


@pytest.fixture
def one_device(monkeypatch):
    """Eight devices compile longer, and are not the point here."""
    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda c: make_mesh(c, jax.devices()[:1]))


@pytest.mark.slow
def test_a_comparison_is_broken_off_goes_on_and_reports(tmp_path, one_device, monkeypatch, capsys):
    one = write_config(tmp_path / "one.py", "return config.recipe('grpo')")
    two = write_config(
        tmp_path / "two.py",
        "c = config.recipe('rloo'); c.train.num_updates = 1;"
        " return config.in_phases(c, config.recipe('grpo'))",
    )
    out = tmp_path / "out"
    # Every update samples 8 completions of 2 to 7 tokens: at least two updates, one for each phase.
    options = dict(seeds=1, tokens=60, overrides=SMALL, workers=0)
    build, built = outcome.Outcome.build, []

    def breaking(self, groups, stages, rng):
        built.append(pathlib.Path(self.config.run_dir))
        if built[-1].name == "phase_2" and len(built) < 100:
            built.extend([None] * 100)
            raise KeyboardInterrupt
        return build(self, groups, stages, rng)

    monkeypatch.setattr(outcome.Outcome, "build", breaking)
    with pytest.raises(KeyboardInterrupt):
        compare.compare([one, two], out, **options)
    built.clear()
    built.extend([None] * 100)
    page = compare.compare([one, two], out, **options)
    # The run that was complete was not touched, and neither was the first phase of the other.
    assert {path.name for path in built if path} == {"phase_2"}
    before = len(built)
    assert compare.compare([one, two], out, **options) == page == out / "report.html"
    assert len(built) == before, "nothing is left to do"

    table = json.loads((out / "compare.json").read_text())
    assert list(table) == ["one", "two"] and "difference" not in table["one"]
    for name, arm in table.items():
        lines = metrics.read_metrics(out / name / "seed0" / "metrics.jsonl")
        assert [line["update"] for line in lines] == list(range(len(lines)))
        assert lines[-1]["perf/generated_tokens"] >= 60 > lines[-2].get("perf/generated_tokens", 0)
        accuracy = lines[-1]["eval/arithmetic/avg@1"]
        assert arm["sampled"] == [accuracy, 0.0] and arm["tokens"][0] >= 60
    assert "| one | 1 |" in (out / "compare.md").read_text()
    assert "| one | 1 |" in capsys.readouterr().out
    assert "<td>two</td>" in page.read_text()


def test_phases_are_joined_as_one_run():
    parts = [
        [{"update": 0, "eval/a": 0.1}, {"update": 1, "perf/generated_tokens": 5.0, "x": 1.0}],
        [{"update": 0, "eval/a": 0.2}, {"update": 1, "perf/generated_tokens": 7.0, "x": 2.0}],
    ]
    lines, offset = phases.joined(parts)
    assert offset == 1
    assert lines == [
        {"update": 0, "eval/a": 0.1},
        {"update": 1, "perf/generated_tokens": 5.0, "x": 1.0, "eval/a": 0.2},
        {"update": 2, "perf/generated_tokens": 12.0, "x": 2.0},
    ]


def test_phases_make_their_own_parts():
    both = config_lib.in_phases(config_lib.recipe("rloo"), config_lib.recipe("grpo"))
    with pytest.raises(ValueError, match="makes its own parts"):
        train.train(both, writers=[])
