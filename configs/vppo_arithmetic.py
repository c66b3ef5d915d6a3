"""VPPO (arXiv 2601.18984), first errors from the task's oracle,
on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/vppo_arithmetic.py
Hardware: 2 CPU cores.
Result:   measured 0.85 +- 0.03 at temperature 1 (0.94 greedy) after 100,000 generated tokens, 17 updates,
          from a start of 0.38 (0.67 greedy); three seeds (benchmarks/matrix.py).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("vppo")
    c.run_dir = "runs/vppo_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    # The prompt is longer than most good prefixes here, and no step can be added to a derivation: nothing to shorten.
    c.vppo.shorten = "none"
    c.optim.learning_rate = 1e-3
    return c
