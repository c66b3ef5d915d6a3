"""PRIME (arXiv 2502.01456) on Qwen2.5-Math-7B after supervised fine-tuning: an implicit reward model learns beside it.

Paper:    43.9 after 592 updates, mean of seven sets of mathematics and code; after 240 updates 41.0, RLOO 36.9.
Command:  jaxrl-reason train --config=configs/prime_qwen25_math_7b.py
Held out: one problem in eight of task.path, which evaluation in the loop asks; the paper's sets: task.eval_path.
Memory:   jaxrl-reason plan --config=configs/prime_qwen25_math_7b.py --device=h100 --devices=8
Hardware: meant for 8 H100 (the paper: 8 A800); not tried, ask plan first.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("prime")
    c.run_dir = "runs/prime_qwen25_math_7b"
    c.task.name = "math"  # the paper: Eurus-2-RL-Data, mathematics and code
    c.task.path = "eurus_2_rl_math.jsonl"
    c.model.source = "PRIME-RL/Eurus-2-7B-SFT"
    c.model.dtype = "bfloat16"
    c.model.remat = "full"
    # The paper's: 256 prompts of 4 samples, rates of policy and reward model, beta, accuracies of 0.2 to 0.8 out of
    # four times as many prompts (the recipe's three further rounds), no KL term.
    c.rollout.num_prompts = 256
    c.rollout.group_size = 4
    c.optim.learning_rate = 5e-7
    c.prime.learning_rate = 1e-6
    c.prime.beta = 0.05
    c.train.num_updates = 592
    # Its code's: a bonus on entropy, whitened advantages, coefficients of 5.
    c.loss.entropy_coef = 0.001
    c.advantage.whiten = "tokens"
    c.prime.implicit_coef = 5.0
    c.prime.outcome_coef = 5.0
    # Ours: lengths.
    c.rollout.prompt_length = 1024
    c.rollout.max_new_tokens = 3072
    c.rollout.chunk_rows = 256
    c.optim.microbatch_rows = 16
    return c
