"""Process reward model on list reduction, from the cold start of sft_arithmetic.py; labels by the task's oracle.

Command:  jaxrl-reason train-prm --config=configs/prm_arithmetic.py
Hardware: 2 CPU cores.
Result:   measured F1 0.81 at threshold 0.5 (0.83 at 0.2) on 512 solutions of that policy: 0.78 of the wrong ones
          located, 0.83 of the right ones passed.
"""

from jaxrl_reason import config


def get_config():
    c = config.base()
    c.run_dir = "runs/prm_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    c.prm.solutions = 8192
    c.prm.updates = 800
    c.locate.prm_threshold = 0.5
    return c
