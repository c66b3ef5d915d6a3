"""dr_grpo on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/dr_grpo_arithmetic.py
Hardware: 2 CPU cores.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("dr_grpo")
    c.run_dir = "runs/dr_grpo_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    return c
