"""IOP on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/iop_arithmetic.py
Hardware: 2 CPU cores.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("iop")
    c.run_dir = "runs/iop_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    c.iop.audit_cut = "last_step"
    # A failed step that only follows from the first mistake is right arithmetic: it should not be pushed down.
    c.iop.num_edits = 1
    # Policy-mode updates wear repair mode out; a mean over all its tokens needs this much weight to hold it.
    c.iop.repair_objective = "sft"
    c.iop.repair_weight = 10.0
    c.optim.learning_rate = 1e-3
    return c
