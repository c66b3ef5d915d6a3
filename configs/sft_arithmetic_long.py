"""Cold start on lists of eight: a policy mode that is stopped early, a repair mode that is trained long.

Command:  jaxrl-reason sft --config=configs/sft_arithmetic_long.py
Hardware: 2 CPU cores.
Result:   measured 0.26 at temperature 1 (0.41 greedy) on 512 problems, 0.23 (0.42) on 512 others, in 48 minutes on one
          busy core; RL starts with 0.87 of the failures that have an anchor repaired. The number of threads changes the
          result.
"""

from jaxrl_reason import config


def get_config():
    c = config.base()
    c.run_dir = "runs/sft_arithmetic_long"
    c.task.length = 8
    c.sft.optimizer = "muon"
    c.sft.policy_updates = 700
    c.sft.repair_start = 0.5
    c.sft.repair_updates = 2600
    c.sft.repair_fraction = 0.75
    c.sft.repair_learning_rate = 2e-3
    return c
