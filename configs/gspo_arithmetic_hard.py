"""GSPO on harder list reduction, modulus 30, from the cold start of sft_arithmetic_hard.py.

Command:  jaxrl-reason train --config=configs/gspo_arithmetic_hard.py
Hardware: 2 CPU cores.
Result:   measured 0.40 at temperature 1 (0.71 greedy) after 240,000 generated tokens, 82 updates; one seed
          (--config.train.max_generated_tokens=240000).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("gspo")
    c.run_dir = "runs/gspo_arithmetic_hard"
    c.task.modulus = 30
    c.model.source = "runs/sft_arithmetic_hard/policy"
    c.rollout.num_prompts = 16
    c.optim.learning_rate = 5e-4
    c.optim.b2 = 0.999
    return c
