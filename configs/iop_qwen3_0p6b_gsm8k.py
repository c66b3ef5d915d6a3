"""IOP (arXiv 2605.05226) on GSM8K with Qwen3-0.6B: the smallest of its kind, for one GPU.

Command:  jaxrl-reason train --config=configs/iop_qwen3_0p6b_gsm8k.py --config.task.path=train.jsonl
Held out: one problem in eight of task.path, which evaluation in the loop asks; the test set: task.eval_path.
Memory:   jaxrl-reason plan --config=configs/iop_qwen3_0p6b_gsm8k.py --device=h100
Hardware: meant for 1 H100 or H200; not tried, ask plan first.
Result:   not measured. The paper has no run of this size.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("iop")
    c.run_dir = "runs/iop_qwen3_0p6b_gsm8k"
    c.task.name = "gsm8k"
    c.task.path = "train.jsonl"
    c.model.source = "Qwen/Qwen3-0.6B"
    c.model.dtype = "bfloat16"
    c.model.remat = "full"
    # All ours: the paper trains larger models only.
    c.rollout.num_prompts = 32
    c.rollout.group_size = 8
    c.rollout.prompt_length = 512
    c.rollout.max_new_tokens = 1024
    c.rollout.chunk_rows = 128
    c.rollout.max_refills = 2
    c.iop.num_repairs = 4
    c.iop.num_edits = 64
    c.iop.repair_rows = 128
    c.iop.reference_anchor = True
    c.optim.learning_rate = 1e-6
    c.optim.microbatch_rows = 8
    c.train.num_updates = 200
    c.eval.num_problems = 256
    return c
