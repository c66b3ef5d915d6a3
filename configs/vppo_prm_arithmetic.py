"""VPPO (arXiv 2601.18984), first errors by the process reward model of prm_arithmetic.py,
on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/vppo_prm_arithmetic.py
Hardware: 2 CPU cores.
Result:   not measured.
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
    return c
