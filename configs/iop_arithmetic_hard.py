"""IOP on harder list reduction, modulus 30, from the cold start of sft_arithmetic_hard.py.

Command:  jaxrl-reason train --config=configs/iop_arithmetic_hard.py
Hardware: 2 CPU cores.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("iop")
    c.run_dir = "runs/iop_arithmetic_hard"
    c.task.modulus = 30
    c.model.source = "runs/sft_arithmetic_hard/policy"
    c.iop.audit_cut = "last_step"
    c.iop.num_edits = 0
    c.optim.learning_rate = 1e-3
    return c
