"""The policy that a run starts from: loaded, and with fresh adapters where the config asks for them.

Host side. Reads: a policy folder, a checkpoint or a preset. Writes: nothing.
"""

from __future__ import annotations

import ml_collections
from jax.sharding import Mesh

from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as tokenizers


def start_policy(
    config: ml_collections.ConfigDict,
    policy: policies.Policy | None,
    *,
    tokenizer_name: str,
    mesh: Mesh,
) -> policies.Policy:
    """Policy to train.

    Args:
      config: reads model, lora and seed.
      policy: given by the caller; None: the one that `config.model.source` names.
      tokenizer_name: of the task, for a preset.
      mesh: where parameters are placed.
    Returns:
      The policy; with `config.lora.rank` its base, frozen, and adapters that change nothing yet. Adapters of an
      earlier run are merged in either case.
    """
    if policy is None:
        policy = policies.load_policy(
            config.model.source,
            dtype=config.model.dtype,
            remat=config.model.remat,
            attention=config.model.attention,
            mesh=mesh,
            tokenizer=tokenizers.make_tokenizer(tokenizer_name),
            seed=config.seed,
            # Small updates would be lost in bfloat16; a frozen base has none.
            param_dtype=None if config.lora.rank else "float32",
        )
    if not config.lora.rank:
        return policies.merged(policy, mesh)
    return policies.adapted(
        policy,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        targets=config.lora.targets,
        seed=config.seed,
        mesh=mesh,
    )
