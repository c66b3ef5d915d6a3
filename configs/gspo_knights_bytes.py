"""GSPO on Knights and Knaves with a random 0.2M-parameter policy over bytes: does every stage take the task?

It learns nothing and cannot: a random policy over bytes names nobody. For a policy that can, name its folder in
model.source; the rest stays as it is.

Command:  jaxrl-reason train --config=configs/gspo_knights_bytes.py
Hardware: 2 CPU cores.
Result:   not measured; one update is tested (tests/tasks/test_tasks_train.py).
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("gspo")
    c.run_dir = "runs/gspo_knights_bytes"
    c.task.name = "knights"
    c.task.people = 2
    c.rollout.num_prompts = 4
    c.rollout.group_size = 2
    c.rollout.max_new_tokens = 64
    c.rollout.chunk_rows = 16
    c.optim.microbatch_rows = 8
    c.train.num_updates = 20
    c.eval.num_problems = 8
    return c
