"""RLOO on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/rloo_arithmetic.py
Hardware: 2 CPU cores.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("rloo")
    c.run_dir = "runs/rloo_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    return c
