"""Systems: one short file each, a recipe that reads like its paper."""

from __future__ import annotations

import ml_collections

from jaxrl_reason.methods import base, iop, outcome


def make_method(config: ml_collections.ConfigDict, *, completion_tokens: int) -> base.Method:
    """Method named by `config.method.name`."""
    if config.method.name == "iop":
        return iop.Iop(config)
    return outcome.Outcome(config, completion_tokens=completion_tokens)
