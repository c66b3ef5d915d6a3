"""Cold start for a harder list reduction, modulus 30; meant to leave a policy that solves about one problem in ten.

Command:  jaxrl-reason sft --config=configs/sft_arithmetic_hard.py
Hardware: 2 CPU cores.
Result:   not measured.
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
