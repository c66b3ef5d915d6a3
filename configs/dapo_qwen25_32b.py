"""DAPO (arXiv 2503.14476) on Qwen2.5-32B: clip-higher, dynamic sampling, token mean, over-long answers.

Paper:    AIME24 50 (avg@32 at temperature 1, top-p 0.7); GRPO alone 30, R1-Zero-Qwen-32B 47.
Command:  jaxrl-reason train --config=configs/dapo_qwen25_32b.py
Held out: one problem in eight of task.path, which evaluation in the loop asks; the paper's sets: task.eval_path.
Memory:   jaxrl-reason plan --config=configs/dapo_qwen25_32b.py --device=h100 --devices=128
Hardware: meant for 128 H100 or 64 v5p, 8 of them along "tensor"; not tried, ask plan first.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("dapo")
    c.run_dir = "runs/dapo_qwen25_32b"
    c.task.name = "math"  # the paper: DAPO-Math-17K
    c.task.path = "dapo_math_17k.jsonl"
    c.model.source = "Qwen/Qwen2.5-32B"
    c.model.dtype = "bfloat16"
    c.model.remat = "full"
    c.mesh.tensor = 8
    # The paper's: 512 prompts of 16 samples, 512 samples in each of 16 updates, 20,480 tokens of which the last 4,096
    # are penalised, a constant rate after 20 warm-up steps of 16 updates; clip 0.2 and 0.28, no KL term (the recipe's).
    # Its rewards are -1 and 1, which is what the length penalty is put on here too; evaluation draws at top-p 0.7.
    c.rollout.num_prompts = 512
    c.rollout.group_size = 16
    c.rollout.max_new_tokens = 20_480
    c.overlong.penalty_tokens = 4096
    c.optim.minibatches = 16
    c.optim.learning_rate = 1e-6
    c.optim.warmup_updates = 320
    c.eval.top_p = 0.7
    # Ours: refills (the recipe's 4 rounds), prompt length, updates.
    c.rollout.prompt_length = 2048
    c.rollout.chunk_rows = 256
    c.optim.microbatch_rows = 16
    c.train.num_updates = 300
    return c
