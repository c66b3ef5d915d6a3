"""GSPO on lists of eight, from the cold start of sft_arithmetic_long.py.

Command:  jaxrl-reason train --config=configs/gspo_arithmetic_long.py
Hardware: 2 CPU cores.
Result:   measured 0.64 +- 0.16 at temperature 1 (0.79 greedy) after 150,000 generated tokens, 31 updates, from a start
          of 0.23 (0.42); 0.67 +- 0.05 with optim.learning_rate=5e-4; five seeds
          (benchmarks/results/learning_long.json).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("gspo")
    c.run_dir = "runs/gspo_arithmetic_long"
    c.task.length = 8
    c.model.source = "runs/sft_arithmetic_long/policy"
    c.rollout.num_prompts = 16
    c.optim.learning_rate = 1e-3
    c.optim.b2 = 0.999
    return c
