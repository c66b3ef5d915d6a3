"""IOP on list reduction where right answers are mostly luck, from the cold start of sft_arithmetic_hard.py.

Command:  jaxrl-reason train --config=configs/iop_arithmetic_hard.py
Hardware: 2 CPU cores.
Result:   measured 0.31 +- 0.03 at temperature 1 (0.48 greedy) after 120,000 generated tokens, 12 updates, from a
          start of 0.13 (0.19); five seeds. Without gate (iop.gate=all), at iop.repair_weight=0.4 and without audit
          0.47 +- 0.09 (benchmarks/results/learning_gate.json).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("iop")
    c.run_dir = "runs/iop_arithmetic_hard"
    c.model.source = "runs/sft_arithmetic_hard/policy"
    c.iop.num_repairs = 1
    c.iop.audit_cut = "last_step"
    c.iop.num_edits = 0
    c.iop.repair_objective = "sft"
    c.iop.repair_weight = 5.0
    c.optim.learning_rate = 1e-3
    return c
