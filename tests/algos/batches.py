"""Small random TrainBatches for the tests beside."""

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.types import TrainBatch

VOCAB = 6


def random_batch(rows=8, columns=6, seed=0, *, live=None, reference=False) -> TrainBatch:
    """Ragged loss masks, two streams, weights; old log-probs near those of a small random policy.

    Rows from number `live` on are padding. Columns 0 and 1 are the prompt.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, columns - 1, size=rows)
    mask = (np.arange(columns)[None] >= 2) & (np.arange(columns)[None] < 2 + lengths[:, None])
    # A gate with holes, but never empty.
    mask &= (rng.random((rows, columns)) < 0.8) | (np.arange(columns)[None] == 2)
    weight = np.where(np.arange(rows) % 3 == 2, 0.5, 1.0)
    if live is not None:
        weight[live:] = 0

    def logprobs():
        return jnp.asarray(-np.log(VOCAB) + 0.3 * rng.standard_normal((rows, columns)), jnp.float32)

    return TrainBatch(
        tokens=jnp.asarray(rng.integers(0, VOCAB, (rows, columns)), jnp.int32),
        token_mask=jnp.asarray(np.arange(columns)[None] < 2 + lengths[:, None]),
        loss_mask=jnp.asarray(mask),
        advantages=jnp.asarray(rng.standard_normal((rows, columns)), jnp.float32),
        old_logprobs=logprobs(),
        ref_logprobs=logprobs() if reference else None,
        row_weight=jnp.asarray(weight, jnp.float32),
        stream=jnp.asarray(np.arange(rows) % 3 == 2, jnp.int32),
        clip_scale=jnp.asarray(1 + rng.random(rows), jnp.float32),
    )
