"""Cold start for a harder list reduction, modulus 30; it leaves a policy near the luck floor.

Command:  jaxrl-reason sft --config=configs/sft_arithmetic_hard.py
Hardware: 2 CPU cores.
Result:   measured 0.07 at temperature 1 (0.21 greedy) on 512 problems; a guess is right in 0.03.
"""

from jaxrl_reason import config


def get_config():
    c = config.base()
    c.run_dir = "runs/sft_arithmetic_hard"
    c.task.modulus = 30
    c.sft.optimizer = "muon"
    c.sft.policy_updates = 780
    c.sft.repair_start = 0.5
    c.sft.repair_updates = 1400
    c.sft.repair_fraction = 0.75
    c.sft.repair_learning_rate = 2e-3
    return c
