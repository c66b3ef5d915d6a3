"""Cold start of the tiny policy on list reduction: policy mode and repair mode.

Command:  jaxrl-reason sft --config=configs/sft_arithmetic.py
Hardware: 2 CPU cores.
Result:   measured 0.38 at temperature 1 (0.67 greedy) on 512 problems; RL starts with 0.79 of the failures that have an
          anchor repaired. The number of threads changes the result.
"""

from jaxrl_reason import config


def get_config():
    c = config.base()
    c.run_dir = "runs/sft_arithmetic"
    c.sft.optimizer = "muon"
    c.sft.policy_updates = 600
    c.sft.repair_start = 0.5
    c.sft.repair_updates = 1200
    c.sft.repair_fraction = 0.75
    c.sft.repair_learning_rate = 2e-3
    return c
