"""IOP (arXiv 2605.05226) on Qwen3-32B: repairs of its own failures train the tokens that differ.

Paper:    mean gain over GSPO of 4.9 and 6.9 points on its two models, AIME25, HMMT25 and LiveCodeBench v6, avg@32;
          GSPO's final score after about 350 updates instead of 800; repairs that succeed 38.4% -> 73.1%.
Start:    the paper first fine-tunes on 500 (error, repair) pairs: jaxrl-reason sft with sft.path, then model.source.
Command:  jaxrl-reason train --config=configs/iop_qwen3_32b.py
Held out: one problem in eight of task.path, which evaluation in the loop asks; the paper's sets: task.eval_path.
Memory:   jaxrl-reason plan --config=configs/iop_qwen3_32b.py --device=h100 --devices=128
Hardware: meant for 128 H100 or 64 v5p, 8 of them along "tensor"; not tried, ask plan first.
Result:   not measured.
"""

from jaxrl_reason import config


def get_config():
    c = config.recipe("iop")
    c.run_dir = "runs/iop_qwen3_32b"
    c.task.name = "math"  # the paper: DeepMath-103K
    c.task.path = "deepmath_103k.jsonl"
    c.model.source = "Qwen/Qwen3-32B"
    c.model.dtype = "bfloat16"
    c.model.remat = "full"
    c.mesh.tensor = 8
    # Ours, where the paper states nothing: groups, batch, lengths, repairs, edits kept, rates.
    c.rollout.num_prompts = 64
    c.rollout.group_size = 16
    c.rollout.prompt_length = 1024
    c.rollout.max_new_tokens = (
        8192  # a repair prompt holds two completions; the model reads 40,960 tokens
    )
    c.rollout.max_refills = 3
    c.rollout.chunk_rows = 256
    c.iop.num_repairs = 4
    c.iop.num_edits = 64
    c.iop.repair_rows = 512
    c.optim.learning_rate = 1e-6
    c.optim.minibatches = 4  # GSPO's
    c.optim.microbatch_rows = 16
    # The paper's: 800 updates of the baseline; IOP has its final score after about 350.
    c.train.num_updates = 800
    # The paper audits with an external model: iop.audit=judge, with iop.judge_url and iop.judge_model.
    return c
