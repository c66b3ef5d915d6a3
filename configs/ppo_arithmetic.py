"""PPO (arXiv 1707.06347) with a critic of its own,
on list reduction, from the cold start of sft_arithmetic.py.

Command:  jaxrl-reason train --config=configs/ppo_arithmetic.py
Hardware: 2 CPU cores.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("ppo")
    c.run_dir = "runs/ppo_arithmetic"
    c.model.source = "runs/sft_arithmetic/policy"
    c.ppo.critic_learning_rate = 1e-3
    c.optim.learning_rate = 1e-3
    return c
