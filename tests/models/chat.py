"""A small tokenizer like that of Qwen3: byte-level BPE, special tokens, a way to write a chat; and checkpoints."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as own
from jaxrl_reason.models import transformer

# The parts of Qwen3's template that one message of the user goes through.
TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""
# Llama 3 writes BOS itself and strips the message.
BOS_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
# The last turn stays open; the next one opens with a token.
OPEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make_tokenizer(
    texts: Iterable[str], vocab_size: int, template: str | None = TEMPLATE
) -> PreTrainedTokenizerFast:
    """Trained on texts; ends with <|im_end|>, pads with <|endoftext|>, has no BOS."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIALS) - 2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens([tokenizers.AddedToken(s, special=True) for s in SPECIALS])
    backend.add_tokens(
        [tokenizers.AddedToken(s, special=False, normalized=False) for s in ("<think>", "</think>")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def save_checkpoint(
    folder: pathlib.Path, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, **generation: Any
) -> None:
    """A random Qwen3 of one layer with this tokenizer, as a Hugging Face folder.

    Args:
      folder: new.
      tokenizer: written as it is, by `transformers` itself.
      seed: of the weights.
      generation: fields of generation_config.json; none: it has no such file.
    """
    config = transformer.ModelConfig(
        len(tokenizer), num_layers=1, d_model=16, num_heads=2, num_kv_heads=1, head_dim=8, d_ff=16
    )
    params = transformer.init_params(config, jax.random.key(seed))
    apply = policies._make_apply(config, None)
    policies.export_policy(folder, policies.Policy(config, params, own.byte_tokenizer(), apply))
    fields = json.loads((folder / "config.json").read_text())
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        fields.pop(name)
    (folder / "config.json").write_text(json.dumps(fields))
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "generation_config.json").unlink()
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    tokenizer.save_pretrained(folder)
