"""Systems: one short file each, a recipe that reads like its paper."""

from __future__ import annotations

import ml_collections

from jaxrl_reason.methods import (
    base,
    cliff,
    grpo_process,
    iop,
    mixed,
    outcome,
    ppo,
    prime,
    rts,
    srl,
    vppo,
)

_METHODS = {
    "vppo": vppo.Vppo,
    "cliff": cliff.Cliff,
    "grpo_process": grpo_process.GrpoProcess,
    "mixed": mixed.Mixed,
    "rts": rts.Rts,
    "prime": prime.Prime,
    "ppo": ppo.Ppo,
    "srl": srl.Srl,
}


def make_method(config: ml_collections.ConfigDict, *, completion_tokens: int) -> base.Method:
    """Method named by `config.method.name`; the names without a class of their own are outcome methods."""
    if config.method.name == "iop":
        return iop.Iop(config)
    make = _METHODS.get(config.method.name, outcome.Outcome)
    return make(config, completion_tokens=completion_tokens)
