"""make_task: each name of the config makes its task, with the config's settings.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

import ml_collections
import pytest

from jaxrl_reason import config, config_rules, tasks


def test_arithmetic_takes_its_settings():
    c = config.base().task
    c.length, c.modulus, c.operators = 5, 20, "+*"
    task = tasks.make_task(c)
    assert (task.name, task.length, task.modulus, task.operators) == ("arithmetic", 5, 20, "+*")


def test_gsm8k_takes_its_path(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')
    c = config.base().task
    c.name, c.path = "gsm8k", str(path)
    task = tasks.make_task(c)
    assert (task.name, len(task)) == ("gsm8k", 1)


def test_every_name_that_the_config_allows_is_known():
    for name in config_rules.CHOICES["task.name"]:
        c = config.base().task
        c.name = name
        try:
            assert tasks.make_task(c).name == name
        except FileNotFoundError as error:  # the name was known; only its file is not there
            assert "no such file" in str(error)


def test_unknown_name():
    with pytest.raises(
        ValueError, match="task.name = 'chess': must be one of arithmetic, code, countdown"
    ):
        tasks.make_task(ml_collections.ConfigDict({"name": "chess"}))
