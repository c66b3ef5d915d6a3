"""Cold start of the tiny policy on list reduction: policy mode and repair mode.

Command:  jaxrl-reason sft --config=configs/sft_arithmetic.py
Hardware: 2 CPU cores.
Result:   measured 0.38 at temperature 1 (0.67 greedy) on 512 problems; RL starts with 79% of the failures repaired
          at the first attempt. Another machine, whose threads round otherwise, gave 0.33 (0.60).
"""

from jaxrl_reason import config


def get_config():
    c = config.base()
    c.run_dir = "runs/sft_arithmetic"
    c.sft.optimizer = "muon"
    c.sft.policy_updates = 450
    c.sft.repair_start = 0.5
    c.sft.repair_updates = 2000
    c.sft.repair_fraction = 0.75
    c.sft.repair_learning_rate = 2e-3
    return c
