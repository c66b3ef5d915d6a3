"""GSPO on lists of eight, from the cold start of sft_arithmetic_long.py.

Command:  jaxrl-reason train --config=configs/gspo_arithmetic_long.py
Hardware: 2 CPU cores.
Result:   not measured.
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
