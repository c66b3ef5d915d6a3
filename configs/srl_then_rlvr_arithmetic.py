"""SRL, then GRPO on the outcome (arXiv 2510.25992), on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/srl_then_rlvr_arithmetic.py
Hardware: 2 CPU cores.
Result:   measured 0.70 +- 0.06 at temperature 1 (0.88 greedy) after 100,000 generated tokens, 12 updates,
          from a start of 0.38 (0.67 greedy); three seeds (benchmarks/matrix.py).
"""

from jaxrl_reason import config


def get_config():
    srl = config.recipe("srl")
    # The cold start has no words to think in, and writes whole solutions: its first step is the one that is asked for.
    srl.task.think = False
    # An expert who merges in any order cannot be imitated: the text nearest to all of its steps is a wrong one.
    srl.task.expert_order = "left"
    srl.task.step_end = "separator"
    srl.train.num_updates = 6
    rlvr = config.recipe("grpo")
    for phase in (srl, rlvr):
        phase.run_dir = "runs/srl_then_rlvr_arithmetic"
        phase.model.source = "runs/sft_arithmetic/policy"
        phase.optim.learning_rate = 1e-3
    # Groups that are all right or all wrong are replaced, as in SRL those of nearly equal similarity.
    rlvr.rollout.max_refills = 4
    rlvr.train.num_updates = 60
    return config.in_phases(srl, rlvr)
