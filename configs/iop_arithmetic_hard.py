"""IOP on harder list reduction, modulus 30, from the cold start of sft_arithmetic_hard.py.

Command:  jaxrl-reason train --config=configs/iop_arithmetic_hard.py
Hardware: 2 CPU cores.
Result:   measured 0.08 at temperature 1 (0.22 greedy) after 240,000 generated tokens, 59 updates; with
          iop.audit=none 0.03; one seed (--config.train.max_generated_tokens=240000).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("iop")
    c.run_dir = "runs/iop_arithmetic_hard"
    c.task.modulus = 30
    c.model.source = "runs/sft_arithmetic_hard/policy"
    c.rollout.num_prompts = 16
    c.iop.num_repairs = 1
    c.iop.audit_cut = "last_step"
    c.iop.num_edits = 0
    c.iop.repair_objective = "sft"
    c.iop.repair_weight = 2.0
    c.optim.learning_rate = 5e-4
    c.optim.b2 = 0.999
    return c
