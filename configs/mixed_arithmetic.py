"""Mixed, a baseline of VPPO (arXiv 2601.18984), step rewards from the task's oracle,
on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/mixed_arithmetic.py
Hardware: 2 CPU cores.
Result:   measured 0.73 +- 0.03 at temperature 1 (0.89 greedy) after 100,000 generated tokens, 18 updates,
          from a start of 0.38 (0.67 greedy); three seeds (benchmarks/matrix.py).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("mixed")
    c.run_dir = "runs/mixed_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    c.optim.learning_rate = 5e-4
    return c
