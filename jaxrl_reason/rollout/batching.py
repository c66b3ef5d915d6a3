"""The only border between host lists and device arrays: pad, chunk, place, and read back.

Host side. Reads: nothing. Writes: nothing.

Shapes are few and fixed. A call picks the smallest prompt bucket that holds its longest prompt, and cuts its rows
into chunks of one of two sizes, so that N updates compile what the first one compiled.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason import sharding
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.models import transformer
from jaxrl_reason.ops import alignment
from jaxrl_reason.rollout import sampler
from jaxrl_reason.types import Completion, PairAlignment, Params, Row, TrainBatch


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Token budgets of a run; every device array has one of these widths."""

    prompt: int  # P of policy prompts
    completion: int  # C
    repair_prompt: int  # P of repair prompts
    chunk_rows: int  # rows that the sampler and the scorer hold at once

    @property
    def prompt_buckets(self) -> tuple[int, ...]:
        """Widths of prompt arrays: policy prompts, those with a prefix behind them, repair prompts."""
        return tuple(sorted({self.prompt, self.prompt + self.completion, self.repair_prompt}))


def pad_left(
    sequences: Sequence[Sequence[int]], *, width: int, rows: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Left-padded [rows, width] int32 tokens and bool mask; rows without a sequence are all padding.

    Raises:
      ValueError: a sequence is longer than `width`.
    Example:
      >>> pad_left([[5, 6]], width=3, rows=1, pad_id=0)[0].tolist()
      [[0, 5, 6]]
    """
    tokens = np.full((rows, width), pad_id, np.int32)
    mask = np.zeros((rows, width), bool)
    for i, sequence in enumerate(sequences):
        if len(sequence) > width:
            raise ValueError(
                f"prompt of {len(sequence)} tokens, but the limit is {width};"
                " raise rollout.prompt_length (or rollout.max_new_tokens, for a prompt with a completion in it)"
            )
        if sequence:
            tokens[i, width - len(sequence) :] = sequence
            mask[i, width - len(sequence) :] = True
    return tokens, mask


def chunk_plan(num_rows: int, full: int, multiple: int = 1) -> list[int]:
    """Sizes of the chunks that hold `num_rows`: full ones, then one full or quarter-size chunk for the rest.

    Example:
      >>> chunk_plan(70, 32), chunk_plan(40, 32)
      ([32, 32, 8], [32, 8])
    """
    full = -(-full // multiple) * multiple
    quarter = -(-max(full // 4, 1) // multiple) * multiple
    plan = [full] * (num_rows // full)
    rest = num_rows - sum(plan)
    if rest:
        plan.append(quarter if rest <= quarter else full)
    return plan


def pick_bucket(buckets: Sequence[int], longest: int) -> int:
    """Smallest bucket that holds `longest` tokens.

    Raises:
      ValueError: none does.
    """
    for bucket in buckets:
        if longest <= bucket:
            return bucket
    raise ValueError(
        f"prompt of {longest} tokens, but the widest prompt bucket is {buckets[-1]};"
        " raise rollout.prompt_length"
    )


def stage_key(key: jax.Array, stage: str) -> jax.Array:
    """Key of a named draw: a pure function of the update's key and the stage's name."""
    return jax.random.fold_in(key, zlib.crc32(stage.encode()) & 0x7FFFFFFF)


class Engine:
    """Sampling, scoring and aligning for host lists: jitted functions by shape, and the tokens they cost.

    Holds no parameters. `generated_tokens` counts sampled tokens since the start of the process.
    """

    def __init__(
        self,
        model: transformer.ModelConfig,
        tokenizer: Any,
        shapes: Shapes,
        *,
        mesh: jax.sharding.Mesh,
        vocab_chunk: int,
    ):
        self.model, self.tokenizer, self.shapes, self.mesh = model, tokenizer, shapes, mesh
        self.generated_tokens = 0
        self.on_rows: Callable[[int], None] = lambda rows: (
            None
        )  # told how many completions are there
        self._samplers: dict[tuple, Callable] = {}
        self._score = sampler.make_scorer(model, mesh=mesh, vocab_chunk=vocab_chunk)
        self._rows = sharding.batch_sharding(mesh)
        self._rows_multiple = sharding.row_shards(mesh)

    def sample(
        self,
        params: Params,
        key: jax.Array,
        prompts: Sequence[Sequence[int]],
        *,
        stage: str,
        num_samples: int = 1,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Completion]]:
        """`types.SampleFn` with the parameters and the update's key as arguments, and `sampling`'s two cuts."""
        prefixes = [()] * len(prompts) if prefixes is None else prefixes
        stops = tokenizers.stop_ids(self.tokenizer)
        groups: list[list[Completion]] = [[] for _ in prompts]
        # A prefix that has ended has nothing to sample.
        live = [i for i, p in enumerate(prefixes) if not (len(p) and p[-1] in stops)]
        for i in set(range(len(prompts))) - set(live):
            done = self._completion(prefixes[i], (), (), truncated=False)
            groups[i] = [done] * num_samples
        if not live:
            return groups
        sequences = [list(prompts[i]) + list(prefixes[i]) for i in live]
        width = pick_bucket(self.shapes.prompt_buckets, max(map(len, sequences)))
        run = self._sampler(num_samples, temperature == 0, top_k, top_p)
        full = max(self.shapes.chunk_rows // num_samples, 1)
        start = 0
        for chunk, size in enumerate(chunk_plan(len(live), full, self._rows_multiple)):
            part = live[start : start + size]
            tokens, mask = pad_left(
                sequences[start : start + size],
                width=width,
                rows=size,
                pad_id=self.tokenizer.pad_token_id,
            )
            budget = np.zeros(size, np.int32)
            budget[: len(part)] = [self.shapes.completion - len(prefixes[i]) for i in part]
            rollout = run(
                params,
                *sharding.to_global((tokens, mask, budget), self._rows),
                temperature,
                jax.random.fold_in(stage_key(key, stage), chunk),
            )
            self._collect(rollout, part, prefixes, width, num_samples, groups)
            self.on_rows(len(part) * num_samples)
            start += size
        return groups

    def _sampler(self, num_samples: int, greedy: bool, top_k: int, top_p: float) -> Callable:
        shape = (num_samples, greedy, top_k, top_p)
        if shape not in self._samplers:
            self._samplers[shape] = sampler.make_sampler(
                self.model,
                num_samples=num_samples,
                max_new_tokens=self.shapes.completion,
                eos_id=tokenizers.stop_ids(self.tokenizer),
                pad_id=self.tokenizer.pad_token_id,
                greedy=greedy,
                top_k=top_k,
                top_p=top_p,
                mesh=self.mesh,
            )
        return self._samplers[shape]

    def _collect(self, rollout, part, prefixes, width, num_samples, groups) -> None:
        rollout = sharding.to_host(rollout)
        lengths = rollout.completion_mask.sum(axis=1)
        for n, i in enumerate(part):
            for row in range(n * num_samples, (n + 1) * num_samples):
                columns = slice(width, width + int(lengths[row]))
                groups[i].append(
                    self._completion(
                        prefixes[i],
                        rollout.tokens[row, columns].tolist(),
                        rollout.behavior_logprobs[row, columns],
                        truncated=bool(rollout.truncated[row]),
                    )
                )
                self.generated_tokens += int(lengths[row])

    def _completion(self, prefix, sampled, logprobs, *, truncated: bool) -> Completion:
        tokens = (*prefix, *sampled)
        behaviour = np.concatenate(
            [np.zeros(len(prefix), np.float32), np.asarray(logprobs, np.float32)]
        )
        text = tokenizers.decode_completion(self.tokenizer, tokens)
        return Completion(tokens, behaviour, text, truncated, len(sampled))

    def score(
        self,
        params: Params,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        *,
        temperature: float,
        scorer: Callable | None = None,
    ) -> list[np.ndarray]:
        """`types.ScoreFn` with the parameters and the sampling temperature as arguments.

        `scorer` replaces that of the policy's log-probs: same arguments, one figure per token.
        """
        scorer = scorer or self._score
        if not prompts:
            return []
        width = pick_bucket(self.shapes.prompt_buckets, max(map(len, prompts)))
        scored: list[np.ndarray] = []
        start = 0
        for size in chunk_plan(len(prompts), self.shapes.chunk_rows, self._rows_multiple):
            part = slice(start, start + size)
            tokens, mask = _join(
                prompts[part], completions[part], width, self.shapes.completion, size, self._pad
            )
            placed = sharding.to_global((tokens, mask), self._rows)
            logprobs = sharding.to_host(scorer(params, *placed, temperature))
            scored += [
                logprobs[row, width : width + len(completion)]
                for row, completion in enumerate(completions[part])
            ]
            start += size
        return scored

    def align(
        self, failed: Sequence[Sequence[int]], repaired: Sequence[Sequence[int]]
    ) -> list[PairAlignment]:
        """`types.AlignFn`: exact Levenshtein alignment on the device, in chunks of fixed shape."""
        pairs: list[PairAlignment] = []
        width, start = self.shapes.completion, 0
        for size in chunk_plan(len(failed), self.shapes.chunk_rows):
            part = slice(start, start + size)
            sides = [pad_right(side[part], width, size, self._pad) for side in (failed, repaired)]
            result = sharding.to_host(_align(*map(jnp.asarray, (*sides[0], *sides[1]))))
            for row, (f, r) in enumerate(zip(failed[part], repaired[part], strict=True)):
                pairs.append(
                    PairAlignment(
                        result.failed_edit_ids[row, : len(f)],
                        result.repaired_edit_ids[row, : len(r)],
                        int(result.num_edits[row]),
                    )
                )
            start += size
        return pairs

    @property
    def _pad(self) -> int:
        return self.tokenizer.pad_token_id


_align = jax.jit(alignment.align)


def pad_right(
    sequences: Sequence[Sequence[int]], width: int, rows: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Right-padded [rows, width] int32 tokens and bool mask; rows without a sequence are all padding."""
    tokens = np.full((rows, width), pad_id, np.int32)
    mask = np.zeros((rows, width), bool)
    for i, sequence in enumerate(sequences):
        tokens[i, : len(sequence)] = sequence
        mask[i, : len(sequence)] = True
    return tokens, mask


def _join(prompts, completions, width: int, budget: int, rows: int, pad_id: int):
    """[rows, width + budget] tokens and mask: prompts end, completions start, at column `width`."""
    left = pad_left(prompts, width=width, rows=rows, pad_id=pad_id)
    right = pad_right(completions, budget, rows, pad_id)
    return tuple(np.concatenate(pair, axis=1) for pair in zip(left, right, strict=True))


def minibatches(rows: Sequence[Any], num: int, rng: np.random.Generator) -> list[list[Any]]:
    """Rows in `num` parts, shuffled where there is more than one; an empty batch is one empty part."""
    if num == 1:
        return [list(rows)]
    order = rng.permutation(len(rows))
    return [[rows[i] for i in part] for part in np.array_split(order, num)]


def pack_rows(
    rows: Sequence[Row],
    *,
    num_rows: int,
    prompt_length: int,
    completion_length: int,
    pad_id: int,
    ref_logprobs: Sequence[np.ndarray] | None = None,
) -> TrainBatch:
    """TrainBatch of NumPy arrays, [num_rows, prompt_length + completion_length]; missing rows have weight 0.

    Args:
      rows: at most `num_rows` training rows.
      num_rows: rows of the batch, always the same, so that the update compiles once.
      prompt_length: P, tokens; prompts are left-padded to it.
      completion_length: C, tokens; completions are right-padded to it.
      pad_id: token id on padding.
      ref_logprobs: per row [len(completion)] float32 of the frozen reference policy, or None.
    Returns:
      TrainBatch on the host.
    Raises:
      ValueError: more rows than `num_rows`, or a sequence that does not fit.
    Example:
      >>> one = np.ones(2, np.float32)
      >>> row = Row((1, 2), (3, 4), one > 0, one, -one)
      >>> pack_rows([row], num_rows=1, prompt_length=3, completion_length=3, pad_id=0).tokens.tolist()
      [[0, 1, 2, 3, 4, 0]]
    """
    if len(rows) > num_rows:
        raise ValueError(f"{len(rows)} training rows, but the batch holds {num_rows}")
    tokens, token_mask = _join(
        [r.prompt for r in rows],
        [r.completion for r in rows],
        prompt_length,
        completion_length,
        num_rows,
        pad_id,
    )
    shape = tokens.shape

    def spread(values: Sequence[np.ndarray], dtype) -> np.ndarray:
        out = np.zeros(shape, dtype)
        for i, value in enumerate(values):
            out[i, prompt_length : prompt_length + len(value)] = value
        return out

    def column(values: Sequence[float | int], dtype, fill: float | int) -> np.ndarray:
        out = np.full(num_rows, fill, dtype)
        out[: len(rows)] = values
        return out

    on_policy = [r.old_logprobs is None for r in rows]
    old = [np.zeros(0) if own else r.old_logprobs for r, own in zip(rows, on_policy, strict=True)]
    return TrainBatch(
        tokens=tokens,
        token_mask=token_mask,
        loss_mask=spread([r.gate for r in rows], bool),
        advantages=spread([r.advantages for r in rows], np.float32),
        old_logprobs=spread(old, np.float32),
        ref_logprobs=None if ref_logprobs is None else spread(ref_logprobs, np.float32),
        row_weight=column([r.weight for r in rows], np.float32, 0.0),
        stream=column([r.stream for r in rows], np.int32, 0),
        clip_scale=column([r.clip_scale for r in rows], np.float32, 1.0),
        on_policy=column(on_policy, bool, True),
    )
