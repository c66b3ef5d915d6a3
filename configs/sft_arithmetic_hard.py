"""Cold start of the tiny policy that leaves policy mode at little more than luck, and repair mode trained long.

Command:  jaxrl-reason sft --config=configs/sft_arithmetic_hard.py
Hardware: 2 CPU cores.
Result:   measured 0.12 at temperature 1 (0.16 greedy) on 512 problems, 0.13 (0.19) on 512 others, on one core; a guess
          is right in 0.10. RL starts with three quarters of the failures that have an anchor repaired. The number of
          threads changes the result.
"""

from jaxrl_reason import config


def get_config():
    c = config.base()
    c.run_dir = "runs/sft_arithmetic_hard"
    c.sft.optimizer = "muon"
    c.sft.policy_updates = 450
    c.sft.repair_start = 0.5
    c.sft.repair_updates = 2000
    c.sft.repair_fraction = 0.75
    c.sft.repair_learning_rate = 2e-3
    return c
