"""Several phases in one config: each a complete config, written down as what it sets differently from the first.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import json
import os
from typing import Any

import ml_collections
import numpy as np

from jaxrl_reason import config_rules


def fields(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Flat {dotted name: value} of every field."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            flat |= fields(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def in_phases(
    first: ml_collections.ConfigDict, *later: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    """One config of several phases: each goes on from the parameters with which the one before ended.

    What a later phase sets differently is written into the field `then`; every other field, and every later change to
    it, is that of all phases.

    Args:
      first: of the first phase; its run_dir, model.source and seed are those of the whole (later phases: `phases`).
      later: complete configs of the phases that follow.
    Returns:
      `first`, with `then` set.
    Example:
      >>> from jaxrl_reason import config
      >>> both = in_phases(config.recipe("grpo"), config.recipe("dapo"))
      >>> [phase.loss.clip_high for phase in phases(config.override(both, ["loss.clip_low=0.1"]))]
      [0.2, 0.28]
    """
    own = fields(first)
    changes = [
        {k: v for k, v in fields(c).items() if v != own[k] and k not in _OF_THE_WHOLE}
        for c in later
    ]
    first.then = json.dumps(changes)
    return first


_OF_THE_WHOLE = ("run_dir", "model.source", "seed", "then")


def phases(config: ml_collections.ConfigDict) -> list[ml_collections.ConfigDict]:
    """The phases of a config, each a run of its own in run_dir/phase_1, phase_2 ...; itself, where there is one.

    The first phase has the seed of the whole, each later one a seed made of that and its number: no phase draws again
    what one before it drew, be it problems or tokens.
    """
    if not config.then:
        return [config]
    folder, found = config.run_dir, []
    for number, changes in enumerate([{}, *json.loads(config.then)], 1):
        phase = ml_collections.ConfigDict(config.to_dict())
        own = {"run_dir": os.path.join(folder, f"phase_{number}"), "then": ""}
        if found:
            own |= {"model.source": found[-1].run_dir, "seed": _seed_of(config.seed, number)}
        phase.update_from_flattened_dict(changes | own)
        found.append(phase.lock())
    return found


def _seed_of(seed: int, number: int) -> int:
    """Seed of a later phase, in [0, 2**31).

    Example:
      >>> len({_seed_of(seed, number) for seed in range(100) for number in range(2, 12)})
      1000
    """
    return int(np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(1)[0] >> 1)


def problems(config: ml_collections.ConfigDict) -> list[str]:
    """Error lines for what is wrong with the later phases of a config that is itself in order."""
    if not config.then:
        return []
    try:
        later = json.loads(config.then)
        if not (isinstance(later, list) and all(isinstance(changes, dict) for changes in later)):
            raise ValueError
    except ValueError:
        return [
            f"then = {config.then!r}: must be a JSON list of {{field: value}}; use config.in_phases"
        ]
    flat, found = fields(config), []
    for number, changes in enumerate(later, 2):
        for name, value in changes.items():
            if name in _OF_THE_WHOLE:
                found.append(f"phase {number}: {name} is that of the whole; take it out")
            elif name not in flat:
                found.append(f"phase {number}: {config_rules.unknown_field(name, flat)}")
            else:
                wrong = config_rules.value_problems(name, value, flat[name])
                found += [f"phase {number}: {problem}" for problem in wrong]
    if found:
        return found
    return [
        f"phase {number}: {problem}"
        for number, phase in enumerate(phases(config)[1:], 2)
        for problem in config_rules.combination_problems(phase)
    ]
