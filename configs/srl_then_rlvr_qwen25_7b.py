"""SRL, then GRPO on the outcome (arXiv 2510.25992), on Qwen2.5-7B-Instruct: imitation first, then answers.

Paper:    mean of seven columns 28.3, against 27.6 of SRL alone, 24.5 of outcome rewards alone and 24.6 untrained;
          AMC23, AIME24, AIME25 (avg@32 and greedy) and Minerva.
Command:  jaxrl-reason train --config=configs/srl_then_rlvr_qwen25_7b.py
Held out: one problem in eight of task.path, which evaluation in the loop asks; the paper's sets: task.eval_path.
Memory:   jaxrl-reason plan --config=configs/srl_then_rlvr_qwen25_7b.py --device=h100 --devices=8
Hardware: meant for 8 H100; not tried, ask plan first.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    srl, rlvr = config.recipe("srl"), config.recipe("grpo")
    for phase in (srl, rlvr):
        phase.run_dir = "runs/srl_then_rlvr_qwen25_7b"
        # Both phases ask the same 1,000 problems: s1K-1.1, solutions rewritten as numbered steps.
        phase.task.name = "gsm8k"  # any JSONL of solutions in steps
        phase.task.path = "s1k_steps.jsonl"
        phase.model.source = "Qwen/Qwen2.5-7B-Instruct"
        phase.model.dtype = "bfloat16"
        phase.model.remat = "full"
        # The paper's: 8 samples, rate, no KL term.
        phase.rollout.group_size = 8
        phase.optim.learning_rate = 5e-7
        # Ours: lengths.
        phase.rollout.prompt_length = 4096
        phase.rollout.max_new_tokens = 2048
        phase.rollout.chunk_rows = 256
        phase.optim.microbatch_rows = 16
    # The paper's: 512 steps in each update of SRL, 128 problems in each of the outcome phase, whose groups that are all
    # right or all wrong are replaced.
    srl.rollout.num_prompts = 512
    rlvr.rollout.num_prompts = 128
    rlvr.rollout.max_refills = 4
    # Ours: updates (the paper takes the best of up to 30 epochs by validation, here the last).
    srl.train.num_updates = 400
    rlvr.train.num_updates = 200
    return config.in_phases(srl, rlvr)
