"""Tokenizers made without any download, settings of a checkpoint's own, and the one way between text and ids.

Host side. Reads: nothing. Writes: nothing.

| name | ids | V |
| --- | --- | --- |
| arithmetic | 0..99: the integers; then the words of the format; <unk>; specials | 120 |
| byte | 0..255: the bytes of UTF-8; then specials | 264 |

Both vocabularies are filled up with <reserved_i> to a multiple of 8, so that a mesh axis of 2, 4 or
8 devices can share the head; no text contains them, and decoding leaves them out.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
import tokenizers
from tokenizers import decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from jaxrl_reason.models import chat_template

_ARITHMETIC_WORDS = ("solve", "repair", ":", ";", "=", "|", "+", "-", "*")
_PAD, _BOS, _EOS, _UNK = "<pad>", "<bos>", "<eos>", "<unk>"
_VOCAB_MULTIPLE = 8
# What a checkpoint says of its tokenizer, kept in the tokenizer's own settings: `save_pretrained` writes them.
_STOPS, _PREPEND_BOS = "stop_token_ids", "prepend_bos"
_SETTINGS_FILE = "tokenizer_config.json"
# Stand for what is said in a chat while the template's own part is looked at; no template strips or changes them.
_ASKED, _ANSWERED = "\ue000question\ue000", "\ue000answer\ue000"


def arithmetic_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the arithmetic text format; V = 120.

    Example:
      >>> tokenizer = arithmetic_tokenizer()
      >>> encode_completion(tokenizer, "8 ; = 8")  # 8, ";", "=", 8, EOS
      [8, 103, 104, 8, 112]
      >>> len(tokenizer)
      120
    """
    words = [*map(str, range(100)), *_ARITHMETIC_WORDS, _UNK]
    model = tokenizer_models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=_UNK)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrap(backend)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte of UTF-8, id = byte value; V = 264.

    Example:
      >>> tokenizer = byte_tokenizer()
      >>> encode_prompt(tokenizer, "é")
      [257, 195, 169]
      >>> decode_completion(tokenizer, [195, 169, tokenizer.eos_token_id])
      'é'
    """
    model = tokenizer_models.BPE({s: i for i, s in enumerate(_byte_symbols())}, merges=[])
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return _wrap(backend)


_TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "arithmetic": arithmetic_tokenizer,
    "byte": byte_tokenizer,
}


def make_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer that a task names in `tokenizer_name`.

    Raises:
      ValueError: no tokenizer has this name.
    Example:
      >>> make_tokenizer("byte").vocab_size
      256
    """
    if name not in _TOKENIZERS:
        raise ValueError(f"tokenizer {name!r}: must be one of {', '.join(_TOKENIZERS)}")
    return _TOKENIZERS[name]()


def adopt_settings(tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]) -> None:
    """Take EOS, padding and BOS as a checkpoint says, and the end of a turn from its chat template.

    A completion ends with any of the EOS tokens that the settings name, with the tokenizer's own, and with the token
    that closes the assistant's turn: base checkpoints bring a template whose end of a turn is no EOS of theirs.

    Args:
      tokenizer: of a checkpoint; changed in place. Its EOS, if the settings name it, else the first that they do, is
        what `encode_completion` writes. Prompts start with BOS where the tokenizer itself would put it.
      settings: generation_config.json over config.json: `eos_token_id` (one or several) and `pad_token_id`.
    Raises:
      ValueError: there is no EOS, or an id that the tokenizer does not have.
    """
    given = settings.get("eos_token_id")
    named = [given] if isinstance(given, int) else list(given or ())
    own, pad = tokenizer.eos_token_id, settings.get("pad_token_id")
    unknown = [i for i in [*named, *([] if pad is None else [pad])] if not 0 <= i < len(tokenizer)]
    if unknown:
        raise ValueError(
            f"eos_token_id = {given}, pad_token_id = {pad}: the tokenizer has no id {unknown[0]},"
            f" only 0 to {len(tokenizer) - 1}"
        )
    _mark_turns(tokenizer)
    all_stops = [*named, own, end_of_turn(tokenizer)]
    stops = list(dict.fromkeys(i for i in all_stops if i is not None))
    if not stops:
        raise ValueError("no EOS token: set eos_token_id in generation_config.json")
    if own is None or (named and own not in named):
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(stops[0])
    if pad is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    elif tokenizer.pad_token_id is None:
        # Masks say what is padding; the id that stands there matters to nobody.
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.init_kwargs[_STOPS] = stops
    if tokenizer.bos_token_id is not None:
        first = tokenizer.encode("a", add_special_tokens=True)[:1]
        tokenizer.init_kwargs[_PREPEND_BOS] = first == [tokenizer.bos_token_id]


def closing(tokenizer: PreTrainedTokenizerBase) -> tuple[str, int | None]:
    """(text, token) that closes the assistant's turn in the chat template.

    The first token of the vocabulary's added ones counts, or the text itself where it is one token. A template that
    leaves the last turn open shows its end before the next one: that may be the token which opens the user's turn.

    Returns:
      ("", None) without a template, or where it does not render.
    """
    turns = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _ANSWERED}]
    for shown in (turns, [*turns, turns[0]]):
        _, answered, behind = _rendered(tokenizer, shown).rpartition(_ANSWERED)
        behind = behind.partition(_ASKED)[0] if answered else ""
        ids = tokenizer.encode(behind, add_special_tokens=False, split_special_tokens=False)
        added = tokenizer.added_tokens_decoder
        found = [i for i in ids if i in added and added[i].content.strip()]
        if not found and behind.strip() in tokenizer.get_vocab():
            found = [tokenizer.convert_tokens_to_ids(behind.strip())]
        if found or behind.strip():
            return behind, found[0] if found else None
    return "", None


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Token that closes the assistant's turn in the chat template; None: there is none."""
    return closing(tokenizer)[1]


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]]) -> str:
    if not tokenizer.chat_template:
        return ""
    try:
        return chat_template.render(tokenizer, turns)
    except (ValueError, jinja2.TemplateError):  # a program: it may refuse these turns in any way
        return ""


def _mark_turns(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make special what the template writes around turns, so that no text can spell it."""
    frame = _rendered(tokenizer, [{"role": "user", "content": _ASKED}])
    ids = set(tokenizer.encode(frame, add_special_tokens=False, split_special_tokens=False))
    added = tokenizer.added_tokens_decoder
    ids = {i for i in ids if i in added and added[i].content.strip()} | {end_of_turn(tokenizer)}
    plain = sorted(i for i in ids - {None} if i not in added or not added[i].special)
    tokens = [
        tokenizers.AddedToken(tokenizer.convert_ids_to_tokens(i), special=True, normalized=False)
        for i in plain
    ]
    tokenizer.add_tokens(tokens, special_tokens=True)


def is_own(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer is one of this module's, and not a checkpoint's."""
    return _STOPS not in tokenizer.init_kwargs


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that end a completion: EOS, and what else a checkpoint names.

    Example:
      >>> stop_ids(byte_tokenizer())
      (258,)
    """
    return tuple(tokenizer.init_kwargs.get(_STOPS, (tokenizer.eos_token_id,)))


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """[BOS] + ids of the text, no EOS; without BOS where the tokenizer has none or puts none.

    Special tokens spelt out in the text are read as plain text: no problem can end or pad a row.

    Example:
      >>> encode_prompt(arithmetic_tokenizer(), "solve 3 8 :")
      [111, 100, 3, 8, 102]
    """
    puts_bos = tokenizer.init_kwargs.get(_PREPEND_BOS, tokenizer.bos_token_id is not None)
    bos = [tokenizer.bos_token_id] if puts_bos else []
    return bos + encode_text(tokenizer, text)


def encode_completion(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of the text + [EOS], as a policy that has finished would have sampled them.

    Raises:
      ValueError: the tokenizer has no EOS, so that no completion could end.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("tokenizer: has no EOS token, so no completion could end; set eos_token")
    return [*encode_text(tokenizer, text), tokenizer.eos_token_id]


def decode_completion(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int] | np.ndarray) -> str:
    """Text up to the first EOS (of several), special tokens left out; inverse of `encode_completion`.

    Bytes that are not UTF-8 usually show as U+FFFD, itself three bytes. Where that would make the
    text longer than what was sampled, they show as "?" instead, so that a failed text put into a
    repair prompt never takes more tokens than it had.

    Args:
      ids: [length] sampled ids, with or without EOS; whatever follows EOS is ignored.
    Example:
      >>> decode_completion(byte_tokenizer(), [52, 255, 50])
      '4?2'
    """
    ids, stops = [int(i) for i in ids], stop_ids(tokenizer)
    ids = ids[: next((at for at, i in enumerate(ids) if i in stops), len(ids))]
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if "\ufffd" in text and len(encode_text(tokenizer, text)) > len(ids):
        text = text.replace("\ufffd", "?")
    return text


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of the text alone; special tokens spelt out in it are read as plain text."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def save(tokenizer: PreTrainedTokenizerBase, folder: pathlib.Path) -> None:
    """Write a tokenizer so that `transformers` 4 and 5 load it.

    Version 5 names a class of its own, and its list of special tokens by a new name; both versions read the old ones.
    """
    tokenizer.save_pretrained(folder)
    path = folder / _SETTINGS_FILE
    settings = json.loads(path.read_text())
    for name in ("backend", "is_local", "local_files_only"):  # of this process
        settings.pop(name, None)
    more = settings.pop("extra_special_tokens", None)
    if more:
        settings["additional_special_tokens"] = more
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def _wrap(backend: tokenizers.Tokenizer) -> PreTrainedTokenizerFast:
    """Add specials and reserved tokens behind the vocabulary, in a fixed order."""
    size = backend.get_vocab_size() + 3
    reserved = [f"<reserved_{i}>" for i in range(-size % _VOCAB_MULTIPLE)]
    specials = [_PAD, _BOS, _EOS, *reserved]
    backend.add_special_tokens(
        [tokenizers.AddedToken(s, special=True, normalized=False) for s in specials]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=_EOS,
        extra_special_tokens=reserved,
        unk_token=_UNK if backend.token_to_id(_UNK) is not None else None,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _byte_symbols() -> list[str]:
    """The printable character that ByteLevel shows for each byte 0..255.

    Printable Latin-1 stands for itself; the other 68 bytes take the characters from U+0100 on, in
    order.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    return [chr(b) if b in own else chr(next(spare)) for b in range(256)]
