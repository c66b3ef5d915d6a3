"""Whose run a folder holds: its config.json is written once, and a resumed run must have the same.

Host side. Reads and writes: config.json of the run folder.
"""

from __future__ import annotations

import pathlib

import jax
import ml_collections

from jaxrl_reason import config as config_lib


def claim(
    folder: pathlib.Path, config: ml_collections.ConfigDict, *, resume: bool, begun: bool = False
) -> None:
    """Write config.json, or make sure that the one that is there, with `resume`, is of the same run.

    Raises: as `start`.
    """
    saved = folder / "config.json"
    if (saved.exists() or begun) and not resume:
        raise FileExistsError(
            f"{folder} already holds a run; go on with --resume, or choose another --config.run_dir"
        )
    if saved.exists():
        _check_same_config(saved, config)
    elif resume:
        raise FileNotFoundError(f"{folder} holds no run to resume; start it without --resume")
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        saved.write_text(config_lib.to_json(config))


# Fields that a resumed run may change: they decide how long it runs and what it writes, not what it computes.
_RESUMABLE = (
    "train.num_updates",
    "train.max_generated_tokens",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.preempt_grace_s",
    "train.log_rollouts_every",
    "train.log_rollouts",
    "train.tensorboard",
    "run_dir",
)


def _check_same_config(saved: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    old, new = (config_lib.fields(c) for c in (config_lib.from_json(saved.read_text()), config))
    changed = [
        f"  {name}: saved {old[name]!r}, now {new[name]!r}"
        for name in new
        if old[name] != new[name] and name not in _RESUMABLE
    ]
    if "optim.schedule" in old and old["optim.schedule"] != "constant":
        if old["train.num_updates"] != new["train.num_updates"]:
            changed.append("  train.num_updates: the learning-rate schedule depends on it")
    if changed:
        raise ValueError(
            f"{saved}: the run was started with another config; resume it with the saved values,"
            " or start a new run_dir:\n" + "\n".join(changed)
        )
