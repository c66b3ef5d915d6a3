"""Reasoning steps inside completions: which token belongs to which step, and where the answer starts.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxrl_reason.types import Rollout, StepSegments
from jaxrl_reason.verify import step_rules


def token_pieces(tokenizer: Any, ids: Sequence[int] | np.ndarray) -> list[str]:
    """Text that each token adds on its own; "" for special tokens.

    Pieces are decoded one id at a time, so a word-level tokenizer loses the spaces between words and a byte-level one
    shows a broken character where a character spans tokens. Both are harmless here: pieces only serve to find
    separators and markers, which are plain text. The space that a SentencePiece token starts with is kept.

    Args:
      tokenizer: anything with the `decode` of a `transformers` tokenizer; asked once per distinct id.
      ids: token ids.
    Returns:
      One string per id.
    """
    text = {i: _piece(tokenizer, i) for i in sorted({int(i) for i in ids})}
    return [text[int(i)] for i in ids]


def _piece(tokenizer: Any, token: int) -> str:
    text = tokenizer.decode([token], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    name = getattr(tokenizer, "convert_ids_to_tokens", lambda _: "")(token)
    spaced = isinstance(name, str) and name.startswith("\u2581") and not text.startswith(" ")
    return f" {text}" if spaced else text


def step_ids(
    tokens: Sequence[int] | np.ndarray,
    pieces: Sequence[str] | Callable[[Sequence[int] | np.ndarray], Sequence[str]],
    separator: str,
) -> np.ndarray:
    """Number of the reasoning step of each token: how many steps ended strictly before it.

    A step ends with the token in which the separator ends, so a token that straddles a boundary belongs to the
    earlier step. A token without text (EOS) belongs to the step before it. Separators that end in one token end one.

    Args:
      tokens: ids of one completion.
      pieces: the text of each token, or a function from ids to that.
      separator: text that ends a step; not empty, no spaces that tokens lose (`token_pieces`). Or the name of a rule of
        `verify.step_rules`: blank_line, newline, step_k, sentence, code_line, tokens:N.
    Returns:
      [len(tokens)] int32: 0, 1, ... without gaps, non-decreasing.
    Raises:
      ValueError: the separator is empty, or there is not one piece per token.
    Example:
      >>> print(step_ids([5, 3, 6, 3, 4, 6, 1], ["5", ";", "6", ";", "=", "6", ""], ";"))
      [0 0 1 1 2 2 2]

    Source: step definition of ProcessBench, arXiv 2412.06559 (paragraphs of a solution, 0-indexed); ours works on token
      ids, so that a step is a set of trainable tokens.
    """
    pieces = _pieces_of(tokens, pieces)
    length = step_rules.num_tokens(separator)
    if length is None:
        reached = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        # First token whose text reaches the last character of the step.
        ends = step_rules.ends("".join(pieces), separator)
        last_tokens = set(np.searchsorted(reached, ends, side="left").tolist())
    else:
        last_tokens = set(range(length - 1, len(pieces), length))
    ids = np.zeros(len(pieces), np.int32)
    step, ended = 0, False
    for t, piece in enumerate(pieces):
        if ended and piece:
            step, ended = step + 1, False
        ids[t] = step
        ended = ended or t in last_tokens
    return ids


def answer_start(
    tokens: Sequence[int] | np.ndarray,
    pieces: Sequence[str] | Callable[[Sequence[int] | np.ndarray], Sequence[str]],
    marker: str,
) -> int:
    """First token of the answer span: the one in which the last answer marker starts.

    Args:
      tokens: ids of one completion.
      pieces: the text of each token, or a function from ids to that.
      marker: text that starts the answer span, not empty.
    Returns:
      A token number; len(tokens) where there is no marker, which makes the span empty.
    Raises:
      ValueError: the marker is empty, or there is not one piece per token.
    Example:
      >>> answer_start([5, 3, 4, 6, 1], ["5", ";", "=", "6", ""], "=")
      2
    """
    if not marker:
        raise ValueError(
            "marker = '': must not be empty; give the text that starts the answer, such as '####'"
        )
    pieces = _pieces_of(tokens, pieces)
    found = "".join(pieces).rfind(marker)
    if found < 0:
        return len(pieces)
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return int(np.searchsorted(ends, found, side="right"))


def segment(rollout: Rollout, tokenizer: Any, rule: str) -> StepSegments:
    """Steps of every completion in a rollout, split after each separator.

    Args:
      rollout: arrays on the host or on one device; only `tokens` and `completion_mask` are read.
      tokenizer: the one that made the tokens.
      rule: see `step_ids`: separator text, such as ";" or a line break, or the name of a rule.
    Returns:
      StepSegments of numpy arrays: step_ids [B, T] int32, -1 outside the completion; step_mask [B, S] bool with S the
      largest number of steps of a row, at least 1.
    Raises:
      ValueError: `rule` is empty.
    """
    tokens = np.asarray(rollout.tokens)
    completion_mask = np.asarray(rollout.completion_mask)
    distinct = np.unique(tokens[completion_mask])
    text = dict(zip(distinct.tolist(), token_pieces(tokenizer, distinct), strict=True))
    ids = np.full(tokens.shape, -1, np.int32)
    for row, mask in enumerate(completion_mask):
        completion = tokens[row, mask].tolist()
        ids[row, mask] = step_ids(completion, [text[token] for token in completion], rule)
    num_steps = ids.max(axis=1, initial=-1) + 1
    step_mask = np.arange(max(1, num_steps.max(initial=0)))[None, :] < num_steps[:, None]
    return StepSegments(step_ids=ids, step_mask=step_mask)


def _pieces_of(tokens, pieces) -> list[str]:
    pieces = list(pieces(tokens) if callable(pieces) else pieces)
    if len(pieces) != len(tokens):
        raise ValueError(
            f"{len(pieces)} pieces for {len(tokens)} tokens: give the text of every token once"
        )
    return pieces
