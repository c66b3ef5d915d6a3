"""A config with phases in one run folder: locked, resumed, and changed where a phase may be."""

from __future__ import annotations

import json
import pathlib

import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import train
from tests.test_train_stops import lines_of, make_config, run

CHANGES = {"eval__every": 0, "eval__num_problems": 4, "train__num_updates": 1}


def two_phases(folder: pathlib.Path, updates: int, **changes):
    first, second = (make_config("gspo", folder, **CHANGES, **changes) for _ in range(2))
    second.train.num_updates = updates
    return config_lib.in_phases(first, second)


@pytest.mark.slow
def test_a_complete_phase_is_left_alone_and_the_next_goes_on_with_other_settings(tmp_path, capsys):
    folder, _ = run(two_phases(tmp_path / "run", 1))
    assert train.is_complete(two_phases(tmp_path / "run", 1))
    with pytest.raises(FileExistsError, match="--resume"):
        run(two_phases(tmp_path / "run", 1))
    first = (folder / "phase_1" / "config.json").read_bytes()
    capsys.readouterr()
    _, state = run(two_phases(tmp_path / "run", 3, optim__learning_rate=0.001), resume=True)
    assert int(state.num_updates) == 3
    said = capsys.readouterr().out
    assert said.count("optim.learning_rate: saved 0.01, now 0.001") == 1
    assert (folder / "phase_1" / "config.json").read_bytes() == first
    second = json.loads((folder / "phase_2" / "config.json").read_text())
    assert second["optim"]["learning_rate"] == 0.001
    assert [line["update"] for line in lines_of(folder)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="loss.clip_low: saved"):
        run(two_phases(tmp_path / "run", 3, loss__clip_low=0.01), resume=True)
