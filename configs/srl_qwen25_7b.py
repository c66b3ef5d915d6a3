"""SRL (arXiv 2510.25992) on Qwen2.5-7B-Instruct: the next step of an expert solution, after free thought.

Paper:    mean of seven columns 27.6 (recomputed from its table: 26.9) against 24.6 untrained and 24.5 of outcome
          rewards; 28.3 with outcome rewards afterwards. AMC23, AIME24, AIME25 (avg@32 and greedy) and Minerva.
Command:  jaxrl-reason train --config=configs/srl_qwen25_7b.py
Held out: one problem in eight of task.path, which evaluation in the loop asks; the paper's sets: task.eval_path.
Memory:   jaxrl-reason plan --config=configs/srl_qwen25_7b.py --device=h100 --devices=8
Hardware: meant for 8 H100; not tried, ask plan first.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("srl")
    c.run_dir = "runs/srl_qwen25_7b"
    c.task.name = (
        "gsm8k"  # any JSONL of solutions in steps; the paper: s1K-1.1, rewritten as numbered steps
    )
    c.task.path = "s1k_steps.jsonl"
    c.model.source = "Qwen/Qwen2.5-7B-Instruct"
    c.model.dtype = "bfloat16"
    c.model.remat = "full"
    # The paper's: 512 steps in each update, 8 samples, no KL term, no warm-up, gradients clipped at norm 1.
    c.rollout.num_prompts = 512
    c.rollout.group_size = 8
    c.optim.learning_rate = 5e-7
    # Ours: lengths, clip 0.2 and the smallest spread of rewards (the recipe's), updates (paper: to 30 epochs).
    c.rollout.prompt_length = 4096
    c.rollout.max_new_tokens = 2048
    c.rollout.chunk_rows = 256
    c.optim.microbatch_rows = 16
    c.train.num_updates = 400
    return c
