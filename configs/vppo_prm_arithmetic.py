"""VPPO (arXiv 2601.18984), first errors by the process reward model of prm_arithmetic.py,
on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/vppo_prm_arithmetic.py
Hardware: 2 CPU cores.
Result:   measured 0.84 +- 0.01 at temperature 1 (0.95 greedy) after 100,000 generated tokens, 18 updates,
          from a start of 0.38 (0.67 greedy); three seeds (benchmarks/matrix.py).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("vppo")
    c.run_dir = "runs/vppo_prm_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    # The prompt is longer than most good prefixes here, and no step can be added to a derivation: nothing to shorten.
    c.vppo.shorten = "none"
    c.locate.kind = "prm"
    c.locate.prm_path = "runs/prm_arithmetic/prm"
    c.locate.prm_threshold = 0.5
    c.optim.learning_rate = 1e-3
    return c
