"""VPPO (arXiv 2601.18984) on Qwen3-4B-Base: a wrong answer's good prefix is rewarded as well.

Paper:    35.4 against 33.7 of GRPO and 20.2 untrained, avg@16, mean of eight
          sets of competition mathematics; about 384 GPU hours.
Command:  jaxrl-reason train --config=configs/vppo_qwen3_4b.py
Held out: one problem in eight of task.path, which evaluation in the loop asks; the paper's sets: task.eval_path.
Memory:   jaxrl-reason plan --config=configs/vppo_qwen3_4b.py --device=h100 --devices=8
Hardware: meant for 8 H100; not tried, ask plan first.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("vppo")
    c.run_dir = "runs/vppo_qwen3_4b"
    c.task.name = "math"  # the paper: MATH, levels 3 to 5, about 8,000
    c.task.path = "math_levels_3_to_5.jsonl"
    c.model.source = "Qwen/Qwen3-4B-Base"
    c.model.dtype = "bfloat16"
    c.model.remat = "full"
    # The paper's: alpha, shortening by the prompt's length, no ReLU for base models, clip 0.2 (the recipe's).
    c.vppo.alpha = 0.5
    c.vppo.shorten = "prompt"
    c.vppo.relu = False
    c.rollout.group_size = 8
    c.optim.learning_rate = 5e-7
    c.train.num_updates = 312  # five epochs of about 8,000 problems, 128 in each update
    # The paper's: first errors by Qwen2.5-Math-PRM-7B, a step below 0.8.
    c.locate.kind = "prm"
    c.locate.prm_path = "Qwen2.5-Math-PRM-7B"
    c.locate.prm_threshold = 0.8
    c.locate.prm_unevaluated = True  # published, so not examined by train-prm
    # Ours: batch, lengths.
    c.rollout.num_prompts = 128
    c.rollout.prompt_length = 1024
    c.rollout.max_new_tokens = 4096
    c.rollout.chunk_rows = 256
    c.optim.microbatch_rows = 16
    return c
