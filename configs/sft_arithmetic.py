"""Cold start of the tiny policy on list reduction: policy mode and repair mode.

Command:  jaxrl-reason sft --config=configs/sft_arithmetic.py
Hardware: 2 CPU cores.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.base()
    c.task.modulus = 20
    c.run_dir = "runs/sft_arithmetic"
    return c
