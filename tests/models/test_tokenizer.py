"""Tokenizers: encode and decode are inverse, specials cannot be forged, save and load offline.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

import json

import numpy as np
import pytest
import transformers
from tokenizers import processors

from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.tasks.arithmetic import Arithmetic
from tests.models import chat

NAMES = ["arithmetic", "byte"]


@pytest.fixture(params=NAMES)
def tokenizer(request):
    return tokenizers.make_tokenizer(request.param)


def test_arithmetic_ids():
    tokenizer = tokenizers.arithmetic_tokenizer()
    assert [tokenizer.convert_tokens_to_ids(str(n)) for n in range(100)] == list(range(100))
    # BOS, "solve", 3, "*", 42, ":"
    assert tokenizers.encode_prompt(tokenizer, "solve 3 * 42 :") == [111, 100, 3, 108, 42, 102]


def test_byte_ids_are_the_bytes():
    tokenizer = tokenizers.byte_tokenizer()
    # Every byte that UTF-8 can hold, and by the vocabulary itself those that it cannot.
    text = "".join(map(chr, range(0x100))) + "߿ࠀ\uffff𐀀\U0010ffff"
    ids = tokenizers.encode_completion(tokenizer, text)
    assert ids == [*text.encode(), tokenizer.eos_token_id]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_vocabulary_sizes(tokenizer):
    size = {"arithmetic": 120, "byte": 264}
    assert len(tokenizer) in size.values()
    assert len(tokenizer) % 8 == 0
    ids = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert len(set(ids)) == 3 and max(ids) < len(tokenizer)


@pytest.mark.parametrize("operators", ["+", "+-*"])
def test_arithmetic_round_trip(operators):
    tokenizer, rng = tokenizers.arithmetic_tokenizer(), np.random.default_rng(0)
    task = Arithmetic(5, 100, operators)
    for problem in task.batch(0, 0, 20):
        text = task.demonstrate(problem, rng)
        prompt = task.repair_prompt(problem, text, text)
        ids = tokenizers.encode_completion(tokenizer, text)
        assert tokenizers.decode_completion(tokenizer, ids) == text
        assert tokenizers.decode_completion(
            tokenizer, tokenizers.encode_prompt(tokenizer, prompt)
        ) == (prompt)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "two  spaces , and . punctuation 's n't !",
        "\n\n#### 42\n",
        "\ttab\r\nline\x00nul",
        "naïve café — €5 ½",
        "日本語 العربية 🙂👩‍👩‍👧",
        "\ufffd\ufffd legit replacement characters",
        "<eos> <pad> <bos> <unk> <reserved_0>",
        r"\boxed{\frac{1}{2}} <<3+4=7>>",
    ],
)
def test_byte_round_trip(text):
    tokenizer = tokenizers.byte_tokenizer()
    ids = tokenizers.encode_completion(tokenizer, text)
    assert tokenizers.decode_completion(tokenizer, ids) == text
    assert len(ids) == len(text.encode()) + 1


def test_random_text_round_trips_as_bytes():
    tokenizer, rng = tokenizers.byte_tokenizer(), np.random.default_rng(1)
    for _ in range(100):
        codes = rng.integers(0x3000, size=30).tolist()
        text = "".join(map(chr, codes))
        ids = tokenizers.encode_completion(tokenizer, text)
        assert tokenizers.decode_completion(tokenizer, ids) == text


def test_any_sampled_ids_decode_and_never_grow(tokenizer):
    rng = np.random.default_rng(2)
    for _ in range(200):
        ids = rng.integers(len(tokenizer), size=20)
        text = tokenizers.decode_completion(tokenizer, ids)
        ids = ids.tolist()
        before_eos = (
            ids[: ids.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in ids else ids
        )
        again = tokenizers.encode_completion(tokenizer, text)
        assert len(again) <= len(before_eos) + 1
        assert not any(special in text for special in tokenizer.all_special_tokens)


def test_specials_in_text_are_plain_text(tokenizer):
    ids = tokenizers.encode_prompt(tokenizer, "5 <eos> <pad> <bos> <reserved_1> 7")
    specials = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert ids[0] == tokenizer.bos_token_id
    assert not specials & set(ids[1:])
    assert max(ids[1:]) < min(specials)


def test_decoding_stops_at_the_first_eos_and_skips_padding(tokenizer):
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = tokenizers.encode_completion(tokenizer, "8 ; = 8")
    assert tokenizers.decode_completion(tokenizer, [*ids, pad, pad]) == "8 ; = 8"
    assert tokenizers.decode_completion(tokenizer, [pad, *ids, *ids]) == "8 ; = 8"
    assert tokenizers.decode_completion(tokenizer, [eos, *ids]) == ""
    assert tokenizers.decode_completion(tokenizer, []) == ""


def test_prompt_has_bos_and_no_eos_completion_the_reverse(tokenizer):
    prompt = tokenizers.encode_prompt(tokenizer, "3 8")
    completion = tokenizers.encode_completion(tokenizer, "3 8")
    assert prompt[1:] == completion[:-1]
    assert (prompt[0], completion[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_a_word_outside_the_format_is_unknown():
    tokenizer = tokenizers.arithmetic_tokenizer()
    ids = tokenizers.encode_completion(tokenizer, "8 100 08 x")
    assert ids == [8, *[tokenizer.unk_token_id] * 3, tokenizer.eos_token_id]


@pytest.mark.parametrize("load", [transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast])
def test_saved_tokenizer_loads_offline_and_is_the_same(tokenizer, load, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tokenizer.save_pretrained(tmp_path)
    loaded = load.from_pretrained(str(tmp_path), local_files_only=True)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(loaded, name) == getattr(tokenizer, name)
    for text in ("solve 3 + 42 ; = 8", "<eos> <reserved_0>", " é  . 's\n"):
        ids = tokenizers.encode_completion(tokenizer, text)
        assert tokenizers.encode_completion(loaded, text) == ids
        decoded = tokenizers.decode_completion(tokenizer, ids)
        assert tokenizers.decode_completion(loaded, ids) == decoded


def test_errors_name_the_fix():
    with pytest.raises(ValueError, match="tokenizer 'word': must be one of arithmetic, byte"):
        tokenizers.make_tokenizer("word")
    tokenizer = tokenizers.byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no EOS token"):
        tokenizers.encode_completion(tokenizer, "x")


def test_a_tokenizer_without_bos_gets_none():
    tokenizer = tokenizers.byte_tokenizer()
    tokenizer.bos_token = None
    assert tokenizers.encode_prompt(tokenizer, "x") == [120]


def test_a_checkpoint_says_what_ends_and_pads():
    tokenizer = tokenizers.byte_tokenizer()
    assert tokenizers.is_own(tokenizer)
    tokenizers.adopt_settings(tokenizer, {"eos_token_id": [65, 66], "pad_token_id": 0})
    assert not tokenizers.is_own(tokenizer)
    assert tokenizers.stop_ids(tokenizer) == (65, 66, 258)  # the tokenizer's own too
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (65, 0)
    assert tokenizers.encode_completion(tokenizer, "x")[-1] == 65
    assert tokenizers.decode_completion(tokenizer, [120, 66, 120]) == "x"
    # The tokenizer itself puts no BOS, so prompts get none.
    assert tokenizers.encode_prompt(tokenizer, "x") == [120]


def test_a_checkpoints_own_eos_and_bos_are_kept(tmp_path):
    tokenizer = tokenizers.byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    tokenizer.pad_token = None
    tokenizers.adopt_settings(tokenizer, {"eos_token_id": [66, 258]})
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 258
    assert tokenizers.encode_prompt(tokenizer, "x") == [257, 120]
    tokenizer.save_pretrained(tmp_path)
    again = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path, local_files_only=True)
    assert tokenizers.stop_ids(again) == (66, 258)
    assert tokenizers.encode_prompt(again, "x") == [257, 120]


def test_settings_that_do_not_fit_are_said():
    for bad in ({"eos_token_id": 264}, {"eos_token_id": [65, -1]}, {"pad_token_id": 900}):
        with pytest.raises(ValueError, match="the tokenizer has no id .* only 0 to 263"):
            tokenizers.adopt_settings(tokenizers.byte_tokenizer(), bad)
    tokenizer = tokenizers.byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no EOS token: set eos_token_id"):
        tokenizers.adopt_settings(tokenizer, {})


# Name: (template, EOS of the tokenizer, what generation_config names, tokens that end a completion).
ENDS = {
    "qwen2.5-base": (chat.TEMPLATE, "<|endoftext|>", "<|endoftext|>", ["<|endoftext|>", "<|im_end|>"]),
    "qwen2.5-instruct": (chat.TEMPLATE, "<|im_end|>", "<|endoftext|>", ["<|endoftext|>", "<|im_end|>"]),
    "smollm2": (chat.TEMPLATE, "<|im_end|>", None, ["<|im_end|>"]),
    "llama3-base": (chat.BOS_TEMPLATE, "<|endoftext|>", None, ["<|endoftext|>", "<|im_end|>"]),
    "open last turn": (chat.OPEN_TEMPLATE, "<|endoftext|>", None, ["<|endoftext|>", "<|im_start|>"]),
    "a word": (chat.TEMPLATE.replace("<|im_end|>", "</think>"), "<|im_end|>", None, ["<|im_end|>", "</think>"]),
    "no word": ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "<|im_end|>", None, ["<|im_end|>"]),
    "refuses": ("{{ raise_exception('no') }}", "<|im_end|>", None, ["<|im_end|>"]),
    "no template": (None, "<|im_end|>", None, ["<|im_end|>"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_a_turn_ends_a_completion(name: str, tmp_path):
    template, eos, generation, ends = ENDS[name]
    tokenizer = chat.make_tokenizer(["Ann has 3 pens."], 300, template)
    tokenizer.eos_token = tokenizer.bos_token = eos
    given = tokenizer.convert_tokens_to_ids(generation) if generation else None
    tokenizers.adopt_settings(tokenizer, {"eos_token_id": given})
    assert tokenizer.convert_ids_to_tokens(tokenizers.stop_ids(tokenizer)) == ends
    for end in ends:
        ids = [*tokenizers.encode_text(tokenizer, "= 7"), tokenizer.convert_tokens_to_ids(end)]
        turn = tokenizer.encode("<|im_start|>user\nmore")
        assert tokenizers.decode_completion(tokenizer, ids + turn) == "= 7"
        # No text spells it, whether the checkpoint calls it special or not.
        assert ids[-1] not in tokenizers.encode_text(tokenizer, f"a{end}b")
    tokenizers.save(tokenizer, tmp_path)
    again = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path, local_files_only=True)
    assert tokenizers.stop_ids(again) == tokenizers.stop_ids(tokenizer)


@pytest.mark.parametrize("name", [*NAMES, "chat"])
def test_a_tokenizer_is_written_for_both_versions_of_transformers(name: str, tmp_path):
    made = chat.make_tokenizer(["Ann has 3 pens."], 300)
    tokenizer = made if name == "chat" else tokenizers.make_tokenizer(name)
    # A tokenizer that was loaded carries what the loading process asked for.
    tokenizer.save_pretrained(tmp_path / "first")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "first", local_files_only=True)
    (tmp_path / "out").mkdir()
    tokenizers.save(loaded, tmp_path / "out")
    fields = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    # Version 4 has no TokenizersBackend, and wants a mapping as extra_special_tokens.
    assert fields["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"backend", "extra_special_tokens", "is_local", "local_files_only"} & fields.keys()
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert sorted(again.all_special_tokens) == sorted(tokenizer.all_special_tokens)
    assert again.chat_template == tokenizer.chat_template
