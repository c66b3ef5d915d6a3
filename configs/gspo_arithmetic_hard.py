"""GSPO on list reduction where right answers are mostly luck, from the cold start of sft_arithmetic_hard.py.

Command:  jaxrl-reason train --config=configs/gspo_arithmetic_hard.py
Hardware: 2 CPU cores.
Result:   measured 0.17 +- 0.05 at temperature 1 (0.26 greedy) after 120,000 generated tokens, 21 updates, from a
          start of 0.13 (0.19); five seeds; the best of three rates (benchmarks/results/learning_gate.json).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("gspo")
    c.run_dir = "runs/gspo_arithmetic_hard"
    c.model.source = "runs/sft_arithmetic_hard/policy"
    c.optim.learning_rate = 5e-4
    return c
