"""SRL (arXiv 2510.25992) on list reduction, from the cold start of sft_arithmetic.py; expert steps are demonstrations.

Command:  jaxrl-reason train --config=configs/srl_arithmetic.py
Hardware: 2 CPU cores.
Result:   measured 0.71 +- 0.04 at temperature 1 (0.88 greedy) after 100,000 generated tokens, 12 updates,
          from a start of 0.38 (0.67 greedy); three seeds (benchmarks/matrix.py).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("srl")
    c.run_dir = "runs/srl_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    # The cold start has no words to think in, and writes whole solutions: its first step is the one that is asked for.
    c.task.think = False
    # An expert who merges in any order cannot be imitated: the text nearest to all of its steps is a wrong one.
    c.task.expert_order = "left"
    c.task.step_end = "separator"
    c.optim.learning_rate = 1e-3
    return c
