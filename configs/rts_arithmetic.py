"""RTS, a baseline of VPPO (arXiv 2601.18984), first errors from the task's oracle,
on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/rts_arithmetic.py
Hardware: 2 CPU cores.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("rts")
    c.run_dir = "runs/rts_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    return c
