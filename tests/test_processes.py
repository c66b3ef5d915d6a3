"""Several processes are refused by every entry, with one clear error, before anything is read or written."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import sys

import jax
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import evaluate, prm_training, sft, sharding, train

PROGRAM = """
import sys, jax
jax.distributed.initialize("127.0.0.1:{port}", 2, int(sys.argv[1]))
from jaxrl_reason import config as config_lib
from jaxrl_reason import evaluate, sft, train
config = config_lib.recipe("gspo")
config.run_dir = sys.argv[2]
config.model.source = "tiny"
for start in (train.train, sft.sft, lambda c: evaluate.measure_all(None, {{"a": c}}, k=(1,))):
    try:
        start(config)
    except ValueError as error:
        print(error)
"""


ENTRIES = {
    "train": train.train,
    "sft": sft.sft,
    "train_prm": prm_training.train_prm,
    "evaluate": lambda config: evaluate.measure_all(None, {"a": config}, k=(1,)),
}


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("phases", [False, True])
def test_every_entry_refuses(name, phases, monkeypatch, tmp_path):
    # A second process takes seconds to start; `test_two_processes_are_refused` has a real one.
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    config = config_lib.recipe("gspo")
    config.run_dir = str(tmp_path / "run")
    if phases:
        config = config_lib.in_phases(config, config_lib.recipe("dapo"))
    with pytest.raises(ValueError, match="several processes are not supported yet: .* 0 of 2"):
        ENTRIES[name](config)
    assert not (tmp_path / "run").exists()


def test_one_process_is_enough():
    sharding.check_one_process()


@pytest.mark.slow
def test_two_processes_are_refused(tmp_path: pathlib.Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM.format(port=port)]
    both = [
        subprocess.Popen(
            [*command, str(i), str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=300)[0].splitlines() for process in both]
    for number, lines in enumerate(said):
        assert len(lines) == 3
        assert all(f"not supported yet: this is process {number} of 2" in line for line in lines)
    assert not (tmp_path / "run").exists()
