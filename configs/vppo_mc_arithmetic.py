"""VPPO (arXiv 2601.18984), first errors by Monte-Carlo binary search,
on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/vppo_mc_arithmetic.py
Hardware: 2 CPU cores.
Result:   measured 0.46 +- 0.03 at temperature 1 (0.71 greedy) after 100,000 generated tokens, 3 updates,
          from a start of 0.38 (0.67 greedy); three seeds (benchmarks/matrix.py).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("vppo")
    c.run_dir = "runs/vppo_mc_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    # The prompt is longer than most good prefixes here, and no step can be added to a derivation: nothing to shorten.
    c.vppo.shorten = "none"
    c.locate.kind = "monte_carlo"
    c.locate.retest = 0  # the second test would cost more tokens than all else
    c.optim.learning_rate = 5e-4
    return c
