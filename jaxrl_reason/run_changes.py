"""What a resumed run may change of its config, and how a config.json of another version is read.

Host side. Reads: config.json. Writes: nothing.
"""

from __future__ import annotations

import fnmatch
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import ml_collections

from jaxrl_reason import config as config_lib
from jaxrl_reason import config_rules

# Fields that decide how long a run goes on, what it writes, and where and how it computes: the same figures up to
# rounding, and up to the draws where rows are sampled in other chunks.
FREE = (
    *("run_dir", "train.*", "eval.every", "mesh.*", "model.remat", "model.attention"),
    *("loss.vocab_chunk", "optim.microbatch_rows", "rollout.chunk_rows"),
    *("task.data_dir", "task.verify_workers", "task.second_opinion", "task.sandbox.workers"),
)
# Fields that steer what is trained from here on, and leave what was trained as it is: no array of the state depends on
# them, and neither do the problems. These are what a run that got stuck needs.
STEERING = (
    *("optim.learning_rate", "optim.grad_clip", "prime.learning_rate", "ppo.critic_learning_rate"),
    *("sft.learning_rate", "sft.repair_learning_rate", "prm.learning_rate"),
    *("rollout.prompt_length", "rollout.max_new_tokens", "locate.prm_tokens"),
    *("locate.critic_prompt_tokens", "locate.critic_new_tokens"),
    *("task.verify_timeout_s", "task.sandbox.*", "iop.judge_*"),
)
# Fields that name files: another place is fine where the content is the same.
DATA = (
    *("task.path", "task.eval_path", "task.pass_rates"),
    *("sft.path", "prm.path", "prm.eval_path"),
)

# Fields that are gone, with the value under which today's runs are the same.
_RETIRED = {"rollout.top_k": 0, "rollout.top_p": 1.0}


class Change(NamedTuple):
    """One field that is not what it was."""

    name: str
    saved: Any
    now: Any
    phase: int = 0  # of a later phase, from 2; 0: of the whole

    @property
    def field(self) -> str:
        """Its name, and of which later phase it is."""
        return f"phase {self.phase}: {self.name}" if self.phase else self.name

    def __str__(self) -> str:
        return f"{self.field}: saved {self.saved!r}, now {self.now!r}"


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a field is one of those that the patterns name."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def changes(saved: ml_collections.ConfigDict, now: ml_collections.ConfigDict) -> list[Change]:
    """Every field in which two configs differ, those of later phases too."""
    old, new = config_lib.fields(saved), config_lib.fields(now)
    found = [Change(n, old[n], new[n]) for n in new if old[n] != new[n] and n != "then"]
    if old["then"] == new["then"]:
        return found
    ours, theirs = (json.loads(flat["then"] or "[]") for flat in (old, new))
    if len(ours) != len(theirs):
        return [*found, Change("then", old["then"], new["then"])]
    for phase, (one, two) in enumerate(zip(ours, theirs, strict=True), 2):
        for name in dict.fromkeys([*one, *two]):
            before, after = one.get(name, old.get(name)), two.get(name, new.get(name))
            if before != after:
                found.append(Change(name, before, after, phase))
    return found


def refuse(
    path: pathlib.Path,
    found: list[Change],
    now: ml_collections.ConfigDict,
    same_data: Collection[str],
    allowed: tuple[str, ...] = FREE + STEERING,
) -> None:
    """Raise for what a resumed run may not change.

    Args:
      path: of the saved config.
      found: all changes.
      now: the new config.
      same_data: fields whose files have the content that they had.
      allowed: patterns of fields that may change.
    Raises:
      ValueError: with a line per field, its old and new value, and what may be changed.
    """
    lines = [str(c) for c in found if not matches(c.name, allowed) and c.name not in same_data]
    if now.optim.schedule != "constant":
        scheduled = [c for c in found if c.name == "train.num_updates"]
        lines += [f"{c}: the learning-rate schedule depends on it" for c in scheduled]
    if lines:
        raise ValueError(
            f"{path}: the run was started with other settings, which cannot change in the middle of a run; resume it"
            " with the saved values, or choose another --config.run_dir:\n  "
            + "\n  ".join(lines)
            + f"\nWhat may change: {', '.join(allowed)}; and {', '.join(DATA)}, to files of the same content."
        )


def read(path: pathlib.Path) -> tuple[ml_collections.ConfigDict, list[str]]:
    """The config of a run, also of one that another version of this program began.

    Returns:
      (config, fields that the file lacks: they have the value that stands for what earlier versions did).
    Raises:
      ValueError: damaged, or with fields that this version does not know or cannot take; names the file and each.
    """
    flat = _flat(_json_object(path))
    default = config_lib.fields(config_lib.base())
    flat = {k: v for k, v in flat.items() if k in default or v != _RETIRED.get(k, _ABSENT)}
    problems = [
        f"{name} = {value!r}: {config_rules.unknown_field(name, default).removeprefix(f'{name}: ')}"
        for name, value in flat.items()
        if name not in default
    ]
    for name, value in flat.items():
        if name in default:
            problems += config_rules.value_problems(name, value, default[name])
    if problems:
        raise ValueError(
            f"{path}: written by another version of this program:\n  "
            + "\n  ".join(problems)
            + "\nGo on with that version; or, where the run can do without these fields, take them out of the file, or"
            " correct them there, and give --resume again."
        )
    lacking = [name for name in default if name not in flat]
    config = ml_collections.ConfigDict(config_lib.base().to_dict())
    config.update_from_flattened_dict(
        {n: v for n, v in _earlier(flat).items() if n in lacking} | flat
    )
    return config.lock(), lacking


def _earlier(flat: Mapping[str, Any]) -> dict[str, Any]:
    """What runs of earlier versions did, of fields that they did not have, where the default of today is not that."""
    reads = flat.get("task.name") in config_rules.READING
    return {"task.hold_out": 0} if reads and not flat.get("task.eval_path") else {}


_ABSENT = object()


def _json_object(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"holds a {type(found).__name__}")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: damaged ({error}); restore it, or delete it and give --resume with the very config that the run"
            " was started with, from which it is written anew"
        ) from error
    return found


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return flat
