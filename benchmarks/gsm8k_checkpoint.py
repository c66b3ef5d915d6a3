"""GSM8K from a Hugging Face checkpoint and back: chat template, IOP and GSPO, export, the same logits in transformers.

The checkpoint is a Qwen3 with random weights, saved by transformers, and a byte-level BPE tokenizer trained on the
file's own texts, with the special tokens and the chat format of Qwen3. Nothing can be learned in so few updates from
random weights, and no claim is made: what is shown is that every stage takes a checkpoint, and what comes out loads.

Command:  python benchmarks/gsm8k_checkpoint.py --data=train.jsonl [--out=FILE.json]
Needs:    the `parity` extra (PyTorch); the training file of GSM8K.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # this checkout, installed or not

import jax
import numpy as np

from jaxrl_reason import config as config_lib
from jaxrl_reason import metrics, parts, sharding, train
from jaxrl_reason.models import convert, policy
from tests.models import chat

VOCAB, UPDATES = 1024, 10
RESULT = pathlib.Path(__file__).parent / "results" / "gsm8k_checkpoint.json"
# (method, rank of the adapters; 0: all weights are trained)
RUNS = (("iop", 0), ("gspo", 0), ("iop", 4))


def make_checkpoint(folder: pathlib.Path, data: pathlib.Path) -> None:
    """A random Qwen3 as `transformers` saves it, with its tokenizer, chat template and generation settings."""
    import torch
    import transformers

    records = [json.loads(line) for line in data.read_text().splitlines()]
    tokenizer = chat.make_tokenizer([r["question"] + "\n" + r["answer"] for r in records], VOCAB)
    stops = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        eos_token_id=stops[0],
        pad_token_id=stops[1],
        bos_token_id=None,
    )
    model = transformers.Qwen3ForCausalLM(config)
    model.generation_config.eos_token_id = stops
    model.generation_config.pad_token_id = stops[1]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def settings(method: str, rank: int, source: pathlib.Path, data: pathlib.Path, run: pathlib.Path):
    """Config of one run, small enough for one core."""
    c = config_lib.recipe(method)
    c.run_dir, c.model.source = str(run), str(source)
    c.task.name, c.task.path = "gsm8k", str(data)
    c.model.prompt_format = "chat"
    c.model.enable_thinking = False
    c.lora.rank = rank
    # A random policy solves nothing: the file's solutions are the anchors, failures are trained as negatives, and
    # wrong repairs differ by their edit cost alone.
    c.iop.reference_anchor = True
    c.iop.unrepaired = "outcome"
    c.iop.num_repairs = 2
    c.iop.repair_rows = 8
    # All rewards of a GSPO group are 0, hence its advantages: the bonus is what moves the weights there.
    c.loss.entropy_coef = 0.01
    c.loss.kl_coef = 0.01
    c.rollout.num_prompts, c.rollout.group_size = 2, 2
    c.rollout.max_new_tokens, c.rollout.chunk_rows = 48, 8
    c.optim.microbatch_rows = 4
    c.train.num_updates, c.train.checkpoint_every = UPDATES, UPDATES
    c.train.tensorboard = False
    c.eval.every, c.eval.num_problems = 0, 4
    return c


def logit_gap(exported: pathlib.Path, ours: policy.Policy) -> dict[str, float]:
    """Largest difference of float32 logits, `transformers` against ours, on a padded batch of two chats."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(exported).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported, padding_side="left")
    messages = [
        [{"role": "user", "content": t}] for t in ("2 + 2 = ?", "How many legs have 3 cats?")
    ]
    batch = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        theirs = model(**batch, position_ids=positions).logits.numpy()
    tokens, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy().astype(bool)
    found = np.asarray(ours.apply(ours.params, tokens, mask))
    gap = np.abs(found - theirs)[mask].max()
    return {"max_abs": float(gap), "of_largest": float(gap / np.abs(theirs[mask]).max())}


def run_once(method: str, rank: int, source, data, folder: pathlib.Path) -> dict:
    """Train, export, load again; figures of one run."""
    config = settings(method, rank, source, data, folder / "run")
    mesh = sharding.make_mesh(config.mesh)
    start = time.process_time()
    run_folder, state = train.train(config, mesh=mesh)
    seconds = time.process_time() - start
    run = parts.make_run(config, mesh=mesh)
    trained = policy.load_policy(run_folder)
    policy.export_policy(folder / "exported", trained)
    lines = metrics.read_metrics(run_folder / "metrics.jsonl")
    updates = [line for line in lines if "policy/loss" in line]
    first = run.prompts.policy(run.task.problems[0])
    pairs = zip(
        convert.flat(policy.merged(trained).params),
        convert.flat(policy.merged(run.policy).params),
        strict=True,
    )
    moved = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for (_, a), (_, b) in pairs)
    shapes = run.engine.shapes
    return {
        "method": method,
        "lora_rank": rank,
        "updates": len(updates),
        "cpu_seconds": round(seconds, 1),  # compilation included
        "trained_parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "prompt_columns": shapes.prompt,
        "repair_prompt_columns": shapes.repair_prompt,
        "first_prompt": run.policy.tokenizer.decode(first),
        "generated_tokens": int(lines[-1]["perf/generated_tokens"]),
        "trained_tokens": int(lines[-1]["perf/trained_tokens"]),
        "updates_with_gradient": sum(line["policy/grad_norm"] > 0 for line in updates),
        "largest_weight_change": moved,
        "sampler_to_trainer_prob_error": max(line["mismatch/prob_error"] for line in updates),
        "logits_transformers_to_ours": logit_gap(folder / "exported", trained),
    }


def main() -> None:
    """Make the checkpoint, run each method, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, help="train.jsonl of GSM8K")
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    options = parser.parse_args()
    if options.data is None:
        print("left out: needs the training file of GSM8K, --data=train.jsonl")
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "checkpoint"
        make_checkpoint(source, options.data)
        for method, rank in RUNS:
            place = pathlib.Path(folder) / f"{method}_{rank}"
            results.append(run_once(method, rank, source, options.data, place))
            print(json.dumps(results[-1], indent=2))
    device = jax.devices()[0]
    record = {
        "device": f"{device.platform} ({platform.machine()}), {len(jax.devices())} device",
        "jax": jax.__version__,
        "vocabulary": VOCAB,
        "runs": results,
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
