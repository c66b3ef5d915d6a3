"""VPPO (arXiv 2601.18984), first errors by Monte-Carlo binary search,
on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/vppo_mc_arithmetic.py
Hardware: 2 CPU cores.
Result:   not measured.
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
    return c
