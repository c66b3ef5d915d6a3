"""Write tests/models/golden: tiny checkpoints and what PyTorch computes with them, for tests without PyTorch.

python -m tests.parity.make_golden
"""

from __future__ import annotations

import pathlib

import numpy as np

from tests.parity import checkpoints

GOLDEN = pathlib.Path(__file__).parents[1] / "models" / "golden"


def main() -> None:
    tokens, mask = checkpoints.ragged_batch()
    for name in checkpoints.CASES:
        model = checkpoints.make_model(name)
        checkpoints.save(model, name, GOLDEN / name)
        answers = {
            "tokens": tokens,
            "mask": mask,
            "logits": checkpoints.logits(model, tokens, mask),
        }
        if not isinstance(model, checkpoints.Prm):
            answers["greedy"] = checkpoints.greedy(model, tokens[3, :8], 32)
        np.savez_compressed(GOLDEN / name / "golden.npz", **answers)


if __name__ == "__main__":
    main()
