"""REINFORCE++ without baseline on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/reinforce_pp_arithmetic.py
Hardware: 2 CPU cores.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("reinforce_pp")
    c.run_dir = "runs/reinforce_pp_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    return c
