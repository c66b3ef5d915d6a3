"""IOP on lists of eight, from the cold start of sft_arithmetic_long.py.

Command:  jaxrl-reason train --config=configs/iop_arithmetic_long.py
Hardware: 2 CPU cores.
Result:   measured 0.79 +- 0.04 at temperature 1 (0.93 greedy) after 150,000 generated tokens, 21 updates, from a start
          of 0.23 (0.42); five seeds (benchmarks/results/learning_long.json).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("iop")
    c.run_dir = "runs/iop_arithmetic_long"
    c.task.length = 8
    c.model.source = "runs/sft_arithmetic_long/policy"
    c.rollout.num_prompts = 16
    c.iop.num_repairs = 1
    c.iop.audit_cut = "last_step"
    c.iop.num_edits = 0
    c.iop.repair_objective = "sft"
    c.iop.repair_weight = 5.0
    c.optim.learning_rate = 1e-3
    c.optim.b2 = 0.999
    return c
