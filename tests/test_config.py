"""Every config is checked whole: one error names all that is wrong, and each file says what it is for."""

from __future__ import annotations

import ast
import pathlib
import re

import jax
import pytest

from jaxrl_reason import config, config_rules, tasks

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


def write(path: pathlib.Path, body: str = "") -> pathlib.Path:
    """A config file that changes `base()` by `body`."""
    path.write_text(
        "from jaxrl_reason import config\n"
        f"def get_config():\n    c = config.base()\n    {body or 'pass'}\n    return c\n"
    )
    return path


def test_the_defaults_are_valid():
    assert config.validate(config.base()) is not None


def test_tables_name_fields_that_exist_and_allow_the_defaults():
    flat = config.fields(config.base())
    for name in (*config_rules.CHOICES, *config_rules.RANGES):
        assert name in flat, name
    for name, words in config_rules.CHOICES.items():
        assert flat[name] in words
    # Every number has a range, so that none is checked for its type alone.
    for name, value in flat.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert name in config_rules.RANGES or name in config_rules.CHOICES, name


def test_every_field_says_what_it_is():
    source = pathlib.Path(config.__file__).read_text()
    body = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "base"
    )
    lines = source.splitlines()
    for node in body.body:
        if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Call):
            assert "#" in lines[node.lineno - 1], lines[node.lineno - 1]


def test_misspelt_names_cannot_be_set():
    c = config.base()
    with pytest.raises(AttributeError):
        c.loss.clip_hi = 0.2


def test_override_parses_by_the_type_of_the_field():
    c = config.override(
        config.base(),
        [
            "loss.clip_high=0.28",
            "--config.rollout.num_prompts=4",
            "model.remat=full",
            "train.tensorboard=false",
            "run_dir=runs/a=b",
            "mesh.fsdp=-1",
            "optim.learning_rate=1e-3",
            "optim.grad_clip=2",
            "task.path=",
        ],
    )
    assert c.loss.clip_high == 0.28
    assert c.rollout.num_prompts == 4 and type(c.rollout.num_prompts) is int
    assert c.model.remat == "full"
    assert c.train.tensorboard is False
    assert c.run_dir == "runs/a=b"
    assert c.mesh.fsdp == -1
    assert c.optim.learning_rate == 1e-3
    assert c.optim.grad_clip == 2.0 and type(c.optim.grad_clip) is float
    assert c.task.path == ""


def test_all_wrong_overrides_are_in_one_error_with_suggestions():
    with pytest.raises(ValueError) as caught:
        config.override(
            config.base(),
            [
                "loss.clip_hihg=0.28",
                "rollout.num_prompts=4.5",
                "seed",
                "task.steps=yes",
                "qqqqqq=1",
            ],
        )
    assert str(caught.value).splitlines() == [
        "5 problems in the overrides:",
        "  loss.clip_hihg: no such field; did you mean loss.clip_high?",
        "  rollout.num_prompts = '4.5': must be an integer",
        "  'seed': write name=value",
        "  task.steps = 'yes': must be true or false",
        "  qqqqqq: no such field",
    ]


def test_all_problems_of_a_config_are_in_one_error():
    c = config.base()
    c.loss.clip_low = 1.0
    c.rollout.group_size = 0
    c.optim.learning_rate = float("nan")
    c.method.name = "pppo"
    with c.unlocked():
        c.loss.clip_hgih = 0.2
        with c.ignore_type():
            c.eval.every = "ten"
        del c.train.num_updates
    with pytest.raises(ValueError) as caught:
        config.validate(c)
    lines = str(caught.value).splitlines()
    assert lines[0] == "7 problems in the config:"
    assert sorted(lines[1:]) == [
        "  eval.every = 'ten': must be an integer",
        "  loss.clip_hgih: no such field; did you mean loss.clip_high?",
        "  loss.clip_low = 1.0: must be in [0, 1)",
        f"  method.name = 'pppo': must be one of {', '.join(config_rules.RECIPES)}",
        "  optim.learning_rate = nan: must be > 0",
        "  rollout.group_size = 0: must be >= 1",
        "  train.num_updates: missing; start from config.base()",
    ]


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["task.operators=+/"], "one or more of"),
        (["rollout.chunk_rows=4", "rollout.group_size=8"], "at least rollout.group_size = 8"),
        (["loss.dual_clip=0.5"], r"must be 0 \(off\) or > 1"),
        (["mesh.fsdp=0"], "-1 for all devices"),
        (["method.name=iop", "iop.audit=judge"], "set iop.judge_url"),
        (["task.name=gsm8k"], "task.path"),
        (["loss.mismatch=tis"], "iop trains repairs under another prompt"),
        (["method.name=gspo", "loss.mismatch=tis", "loss.old_logprobs=behavior"], "recomputed"),
        (["prime.min_accuracy=0.9"], "must be <= prime.max_accuracy = 0.8"),
        (["then=[1]"], "must be a JSON list"),
        (['then=[{"loss.clip_hihg": 1}]'], "phase 2: loss.clip_hihg: no such field; did you mean"),
        (['then=[{"loss.clip_low": 1}]'], r"phase 2: loss.clip_low = 1.0: must be in \[0, 1\)"),
        (['then=[{"seed": 1}]'], "phase 2: seed is that of the whole"),
        (['then=[{}, {"method.name": "grpo"}]'], "phase 3: loss.ratio = 'sequence': grpo means"),
        (["task.name=math"], "task.path"),
        (["task.min_pass_rate=0.6", "task.max_pass_rate=0.5"], "task.min_pass_rate"),
        (["task.pass_rates=rates.jsonl"], "task.pass_rates"),
        (["task.step_rule=paragraph"], "one of blank_line, newline, .*tokens:N"),
        (["task.step_rule=sentence"], "arithmetic counts its own steps"),
        (["task.name=knights", "task.steps=True", "task.step_rule=tokens:8"], "has no tokens"),
        (
            [
                "task.name=knights",
                "task.steps=True",
                "task.step_rule=newline",
                "task.step_end=separator",
            ],
            "to eos",
        ),
    ],
)
def test_combinations_that_cannot_work_are_refused(assignments: list[str], words: str):
    with pytest.raises(ValueError, match=words):
        config.validate(config.override(config.base(), assignments))


def test_phases_are_complete_configs_that_share_what_they_do_not_set():
    first, second = config.recipe("srl"), config.recipe("grpo")
    first.run_dir, second.run_dir = "runs/both", "runs/other"
    second.train.num_updates = 7
    both = config.override(config.in_phases(first, second), ["train.num_updates=3", "seed=5"])
    one, two = config.phases(config.validate(both))
    assert (one.method.name, two.method.name) == ("srl", "grpo")
    assert (one.task.steps, two.task.steps) == (True, False)
    assert (one.train.num_updates, two.train.num_updates) == (3, 7)
    assert one.seed == 5 != two.seed
    assert (one.run_dir, two.run_dir) == ("runs/both/phase_1", "runs/both/phase_2")
    assert (one.model.source, two.model.source) == ("tiny", one.run_dir)
    assert one.then == two.then == ""
    assert config.phases(second) == [second]
    for phase in (one, two):
        config.validate(phase)


def test_no_phase_asks_or_draws_again_what_one_before_it_did():
    first = config.recipe("srl")
    both = config.in_phases(first, config.recipe("grpo"), config.recipe("rloo"))
    phases = config.phases(both)
    keys = {tuple(jax.random.key_data(jax.random.key(phase.seed)).tolist()) for phase in phases}
    assert len(keys) == 3
    task = tasks.make_task(config.base().task)
    asked = [{p.prompt for p in task.batch(phase.seed, 0, 64)} for phase in phases]
    assert not (asked[0] & asked[1] or asked[0] & asked[2] or asked[1] & asked[2])
    # A resumed run finds the same seeds; another run has other ones.
    assert [p.seed for p in config.phases(both)] == [p.seed for p in phases]
    config.override(both, ["seed=1"])
    assert not {p.seed for p in config.phases(both)} & {p.seed for p in phases}


def test_bounds_are_inclusive_where_written_so():
    for assignment in (
        "eval.top_p=1.0",
        "iop.threshold=1",
        "loss.clip_low=0",
        "task.modulus=100",
    ):
        config.validate(config.override(config.base(), [assignment]))
    for assignment in (
        "iop.threshold=0",
        "rollout.temperature=0",
        "task.modulus=101",
        "optim.b1=1",
    ):
        with pytest.raises(ValueError, match=re.escape(assignment.split("=")[0])):
            config.validate(config.override(config.base(), [assignment]))


def test_load_puts_the_command_line_over_the_file_over_the_default(tmp_path: pathlib.Path):
    path = write(tmp_path / "mine.py", "c.seed = 7; c.train.num_updates = 3")
    c = config.load(path, ["seed=8"])
    assert (c.seed, c.train.num_updates, c.rollout.num_prompts) == (8, 3, 32)


def test_load_names_unknown_fields_and_bad_values_in_one_error(tmp_path: pathlib.Path):
    with pytest.raises(ValueError) as caught:
        config.load(write(tmp_path / "mine.py"), ["loss.clip_hihg=0.28", "loss.clip_low=2"])
    assert "loss.clip_high?" in str(caught.value)
    assert "loss.clip_low = 2.0: must be in [0, 1)" in str(caught.value)


def test_load_refuses_what_is_no_config_file(tmp_path: pathlib.Path):
    with pytest.raises(FileNotFoundError, match=r"none\.py: no such config file"):
        config.load(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"has no get_config\(\)"):
        config.load(tmp_path / "empty.py")


def test_json_round_trip_keeps_every_field_and_type(tmp_path: pathlib.Path):
    c = config.override(config.base(), ["seed=5", "loss.clip_low=1e-05", "run_dir=läufe/1"])
    found = config.from_json(config.to_json(c))
    assert config.fields(found) == config.fields(c)
    assert {k: type(v) for k, v in config.fields(found).items()} == {
        k: type(v) for k, v in config.fields(c).items()
    }
    with pytest.raises(AttributeError):  # locked, like base()
        found.loss.clip_hi = 0.2
    with pytest.raises(ValueError, match="seed = -1"):
        config.from_json(config.to_json(c).replace('"seed": 5', '"seed": -1'))


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_file_builds_and_says_what_it_is(path: pathlib.Path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text, f"{path}: no docstring"
    assert re.search(rf"jaxrl-reason [\w-]+ .*configs/{path.name}", text), (
        f"{path}: show its command"
    )
    assert re.search(r"\b(not )?measured\b", text, re.IGNORECASE), (
        f"{path}: say what was measured, or 'not measured'"
    )
    # gsm8k has no path of its own: problems are not shipped.
    wanted = ["task.path=train.jsonl"] if "task.path" in text else []
    config.load(path, wanted)


def test_methods_with_an_advantage_per_token_cannot_be_whitened_by_rows():
    c = config.override(config.recipe("ppo"), ["advantage.whiten=rows"])
    with pytest.raises(ValueError, match="ppo has an advantage per token"):
        config.validate(c)
