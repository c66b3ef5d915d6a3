"""IOP on GSM8K with a random 0.2M-parameter policy over bytes: does every stage take real text?

It learns nothing and cannot: a random policy over bytes solves no problem, so the data set's own solutions serve as
anchors, and no repair is ever right. What is shown is that 20 updates of real problems, of real length, go through.

Command:  jaxrl-reason train --config=configs/iop_gsm8k_bytes.py --config.task.path=train.jsonl
Held out: one problem in eight of task.path, which evaluation in the loop asks; the test set: task.eval_path.
Hardware: 2 CPU cores.
Result:   measured: 20 updates without error, 1,340 s of updates beside other work; reward 0 throughout.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("iop")
    c.run_dir = "runs/iop_gsm8k_bytes"
    c.task.name = "gsm8k"
    c.task.path = "train.jsonl"
    c.iop.reference_anchor = True
    c.rollout.num_prompts = 4
    c.rollout.group_size = 2
    c.rollout.max_new_tokens = 64
    c.rollout.chunk_rows = 16
    c.optim.microbatch_rows = 4
    c.iop.repair_rows = 16
    c.train.num_updates = 20
    c.eval.num_problems = 8
    return c
