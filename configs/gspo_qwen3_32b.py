"""GSPO (arXiv 2507.18071) on Qwen3-32B, the baseline of iop_qwen3_32b.py: same data, lengths and batches.

Paper:    arXiv 2605.05226 has it 4.9 and 6.9 points below IOP on its two models, after 800 updates.
Command:  jaxrl-reason train --config=configs/gspo_qwen3_32b.py
Held out: one problem in eight of task.path, which evaluation in the loop asks; the paper's sets: task.eval_path.
Memory:   jaxrl-reason plan --config=configs/gspo_qwen3_32b.py --device=h100 --devices=128
Hardware: meant for 128 H100 or 64 v5p, 8 of them along "tensor"; not tried, ask plan first.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("gspo")
    c.run_dir = "runs/gspo_qwen3_32b"
    c.task.name = "math"  # the paper: DeepMath-103K
    c.task.path = "deepmath_103k.jsonl"
    c.model.source = "Qwen/Qwen3-32B"
    c.model.dtype = "bfloat16"
    c.model.remat = "full"
    c.mesh.tensor = 8
    # The paper's: clip 3e-4 and 4e-4 (the recipe's), 4 minibatches, no KL term.
    c.optim.minibatches = 4
    # Ours, as in iop_qwen3_32b.py.
    c.rollout.num_prompts = 64
    c.rollout.group_size = 16
    c.rollout.prompt_length = 1024
    c.rollout.max_new_tokens = 8192
    c.rollout.chunk_rows = 256
    c.optim.learning_rate = 1e-6
    c.optim.microbatch_rows = 16
    c.train.num_updates = 800
    return c
