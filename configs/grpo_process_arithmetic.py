"""GRPO with process supervision (arXiv 2402.03300), step rewards from the task's oracle,
on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/grpo_process_arithmetic.py
Hardware: 2 CPU cores.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("grpo_process")
    c.run_dir = "runs/grpo_process_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    return c
