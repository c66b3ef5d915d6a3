"""Parts of a run, made from its config: task, policy, shapes, engine, state, writers.

Host side. Reads: config, policy folder, checkpoints. Writes: config.json and policy/ of the run folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxrl_reason import checkpoint, metrics, run_folder, sharding, tasks, timing
from jaxrl_reason.algos import update as algos_update
from jaxrl_reason.credit import segment
from jaxrl_reason.methods import base, make_method
from jaxrl_reason.models import lengths, lora, transformer
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import prompts as prompts_lib
from jaxrl_reason.models import start as starting
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.models.model_config import ModelConfig
from jaxrl_reason.rollout import batching, judges
from jaxrl_reason.types import Companion, Params, Row, ScoreFn, TrainBatch, TrainState, VerifyFn


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same from the first update to the last."""

    config: ml_collections.ConfigDict
    folder: pathlib.Path
    mesh: jax.sharding.Mesh
    task: Any
    # As loaded, with adapters that change nothing where `config.lora` asks for them: start of the run, and the
    # reference where the loss has a KL term.
    policy: policies.Policy
    prompts: prompts_lib.Prompts
    method: base.Method
    engine: batching.Engine
    pieces: Callable[[Sequence[int]], list[str]]  # text of each token, remembered
    judges: judges.Judges  # networks besides the policy that judge steps


@dataclasses.dataclass
class Progress:
    """How far a run is; saved with every checkpoint."""

    update: int = 0
    generated_tokens: int = 0  # policy, repairs and audits; evaluation not counted
    trained_tokens: int = 0  # tokens with loss
    seconds: float = 0.0  # spent on updates; evaluation and saving not counted
    unevaluated: bool = False  # the evaluation that is due at this update is missing
    frozen: int = 0  # fingerprint of weights that are not in the checkpoint; 0: there are none

    def advance(self, *, generated: int, trained: int, seconds: float) -> None:
        self.update += 1
        self.generated_tokens += generated
        self.trained_tokens += trained
        self.seconds += seconds
        self._last = (generated, seconds)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def metrics(self) -> dict[str, float]:
        generated, seconds = self._last
        return {
            "perf/generated_tokens": float(self.generated_tokens),
            "perf/trained_tokens": float(self.trained_tokens),
            "perf/seconds": self.seconds,
            "time/total": seconds,
            "perf/tokens_per_s": generated / max(seconds, 1e-9),
        }


def make_prompts(
    config: ml_collections.ConfigDict, task: Any, tokenizer: Any
) -> tuple[prompts_lib.Prompts, batching.Shapes]:
    """Prompts of a task, and token budgets: the config's where it gives one, else what the task needs.

    The task of the prompts lacks the problems whose prompt is longer than the config allows.
    """
    completion = config.rollout.max_new_tokens or task.completion_tokens
    prompts = prompts_lib.make_prompts(task, tokenizer, config.model, draft_tokens=completion)
    if config.rollout.prompt_length:
        prompts = lengths.fit(prompts, config.rollout.prompt_length)
    prompt, repair = prompts_lib.prompt_widths(
        prompts, completion, references=config.iop.reference_anchor
    )
    prompt = config.rollout.prompt_length or prompt
    return prompts, batching.Shapes(prompt, completion, repair, config.rollout.chunk_rows)


def make_run(
    config: ml_collections.ConfigDict,
    *,
    task: Any = None,
    policy: policies.Policy | None = None,
    method: base.Method | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Run:
    """All parts of a run; each default comes from the config."""
    task = task or tasks.make_task(config.task)
    mesh = mesh or sharding.make_mesh(config.mesh)
    policy = starting.start_policy(config, policy, tokenizer_name=task.tokenizer_name, mesh=mesh)
    prompts, shapes = make_prompts(config, task, policy.tokenizer)
    task = prompts.task
    if note := getattr(getattr(task, "whole", task), "note", ""):
        print(note, file=sys.stderr)
    method = method or make_method(config, completion_tokens=shapes.completion)
    engine = batching.Engine(
        policy.config, policy.tokenizer, shapes, mesh=mesh, vocab_chunk=config.loss.vocab_chunk
    )
    folder = pathlib.Path(config.run_dir)
    pieces = _pieces(policy.tokenizer)
    others = judges.load(config, shapes, policy, task, mesh)
    return Run(config, folder, mesh, task, policy, prompts, method, engine, pieces, others)


def _pieces(tokenizer: Any) -> Callable[[Sequence[int]], list[str]]:
    """`segment.token_pieces` that decodes each id of the vocabulary once in a run."""
    known: dict[int, str] = {}

    def pieces(tokens: Sequence[int]) -> list[str]:
        fresh = list({int(t) for t in tokens} - known.keys())
        known.update(zip(fresh, segment.token_pieces(tokenizer, fresh), strict=True))
        return [known[int(t)] for t in tokens]

    return pieces


def state_shapes(optimizer: Any, params: Params) -> TrainState:
    """The state before the first update, with ShapeDtypeStructs; `params` are arrays or the same."""

    def make(params):
        return TrainState(jnp.int32(0), params, optimizer.init(params), jax.random.key(0))

    return jax.eval_shape(make, params)


def state_shardings(model: ModelConfig, mesh: sharding.AnyMesh, state: TrainState) -> TrainState:
    """Where each array of the state lives."""
    axes = lora.trainable(model, transformer.logical_axes(model))
    return sharding.state_shardings(mesh, axes, state)


def first_state(run: Run, optimizer: Any, params: Params | None = None) -> TrainState:
    """State before the first update, placed on the mesh; starts from the policy unless `params` are given."""
    model = run.policy.config
    params = lora.trainable(model, run.policy.params if params is None else params)
    places = state_shardings(model, run.mesh, state_shapes(optimizer, params))
    # The update donates its state, and the policy's own arrays stay: they are the reference. Moments are zeros that
    # no parameter says the place of: without `out_shardings` every device would make all of them.
    params = jax.tree.map(jnp.copy, jax.device_put(params, places.params))
    opt_state = jax.jit(optimizer.init, out_shardings=places.opt_state)(params)
    state = TrainState(jnp.int32(0), params, opt_state, jax.random.key(run.config.seed))
    return jax.device_put(state, places)


def without_start(run: Run) -> Run:
    """The run without the parameters that it started from, once its state is made: their memory is free again."""
    return dataclasses.replace(run, policy=dataclasses.replace(run.policy, params={}))


def place_batch(run: Run, batch: TrainBatch) -> TrainBatch:
    """TrainBatch of NumPy arrays on the mesh, split by rows."""
    return sharding.to_global(batch, sharding.batch_sharding(run.mesh))


@contextlib.contextmanager
def entered(
    config: ml_collections.ConfigDict, *, resume: bool, data: Sequence[str]
) -> Iterator[tuple[run_folder.Claim, checkpoint.Checkpoints]]:
    """The run folder, held against other processes and found to be free or this run's; and its checkpoints.

    Raises: as `run_folder.locked` and `run_folder.check`.
    """
    with run_folder.locked(config.run_dir, resume=resume) as folder:
        store = checkpoint.Checkpoints(folder / "checkpoints", keep=config.train.keep_checkpoints)
        with contextlib.closing(store):
            update = store.latest_step()
            yield (
                run_folder.check(folder, config, resume=resume, update=update, data=data),
                store,
            )


def start(
    run: Run,
    optimizer: Any,
    store: checkpoint.Checkpoints,
    *,
    resume: bool,
    companion: TrainState | None = None,
) -> tuple[TrainState, Progress]:
    """First state of the run, or its latest checkpoint; priorities at the top of `checkpoint`.

    `companion` is the first state of the method's second model, which the run's state holds.

    Raises:
      CheckpointError: it cannot be restored, or belongs to other frozen weights.
    """
    state = first_state(run, optimizer)._replace(companion=companion)
    frozen = _frozen(run).get("frozen")
    fingerprint = 0 if frozen is None else checkpoint.fingerprint(frozen)
    if store.latest_step() is None:
        if resume:
            print(f"{run.folder}: no checkpoint yet; starting at update 0")
        return state, Progress(frozen=fingerprint, unevaluated=True)
    state, meta = store.restore(state)
    if meta["frozen"] != fingerprint:
        raise checkpoint.CheckpointError(
            f"{run.folder}: its adapters were trained on other weights than {run.config.model.source} holds now;"
            " put those back, or choose another run_dir"
        )
    return state, Progress(**meta)


def grace_s(config: ml_collections.ConfigDict) -> float:
    """Seconds after which work is dropped for a signal; 0: it is waited for."""
    # Processes that share one computation cannot drop it each on its own.
    return 0.0 if jax.process_count() > 1 else config.train.preempt_grace_s


def make_optimizer(run: Run) -> Any:
    """Optimizer and schedule of `config.optim`."""
    config = run.config
    return algos_update.make_optimizer(
        config.optim, config.train.num_updates * config.optim.minibatches
    )


def make_update(
    run: Run, optimizer: Any, *, loss_fn: Callable | None = None, first_column: int | None = None
) -> algos_update.Update:
    """The jitted optimizer update of this run; `loss_fn` replaces the loss of `config.loss`."""

    def hidden_fn(params, tokens, token_mask):
        model, mesh = run.policy.config, run.mesh
        return transformer.forward(model, params, tokens, token_mask, mesh=mesh)[0]

    shapes, repairs = run.engine.shapes, _trains_repairs(run.config)
    own = lora.trainable(run.policy.config, run.policy.params)
    return algos_update.make_update(
        hidden_fn,
        transformer.head,
        optimizer,
        loss_config=run.config.loss,
        loss_fn=loss_fn,
        **_frozen(run),
        microbatch_rows=run.config.optim.microbatch_rows,
        temperature=run.config.rollout.temperature,
        max_completion=shapes.completion,
        # No loss before it: prompt columns need no projection to the vocabulary.
        first_column=first_column or prompt_columns(run.config, shapes),
        streams=("policy", "repair") if repairs else ("policy",),
        row_sharding=sharding.batch_sharding(run.mesh),
        state_sharding=state_shardings(run.policy.config, run.mesh, state_shapes(optimizer, own)),
        batch_sharding=sharding.batch_sharding(run.mesh),
    )


def _frozen(run: Run) -> dict[str, Any]:
    if run.policy.config.lora is None:
        return {}
    return {"frozen": lora.split(run.policy.params)[0], "join_fn": lora.join}


def whole_params(run: Run, params: Params) -> Params:
    """Parameters to sample and score with, of those that a state holds: with adapters, the base as well."""
    return lora.whole(run.policy.config, run.policy.params, params)


def _trains_repairs(config: ml_collections.ConfigDict) -> bool:
    return config.method.name == "iop" and config.iop.repair_weight > 0


def prompt_columns(config: ml_collections.ConfigDict, shapes: batching.Shapes) -> int:
    """Columns before the completions of every TrainBatch."""
    return shapes.repair_prompt if _trains_repairs(config) else shapes.prompt


def train_rows(config: ml_collections.ConfigDict, method: base.Method) -> int:
    """Rows of every TrainBatch: the method's most, in whole microbatches."""
    most = method.max_rows(config.rollout.num_prompts, config.rollout.group_size)
    per_part = -(-most // config.optim.minibatches)
    micro = config.optim.microbatch_rows
    return -(-per_part // micro) * micro


def with_old_logprobs(
    update_fn: Callable, state: TrainState, batches: Sequence[TrainBatch]
) -> tuple[TrainState, list[TrainBatch]]:
    """The batches with the state's own log-probs to divide by; the state comes back as it was.

    Raises:
      TypeError: an `update_fn` without `logprobs` (see `algos.update.Update`), which more than one minibatch needs.
    """
    if batches and not isinstance(update_fn, algos_update.Update):
        raise TypeError(
            "optim.minibatches > 1 needs an update_fn with `logprobs`, as algos.update.make_update returns;"
            " set optim.minibatches=1, or give such a one"
        )
    scored = []
    for batch in batches:
        state, logprobs = update_fn.logprobs(state, batch)
        old = jnp.where(batch.on_policy[:, None], logprobs, batch.old_logprobs)
        scored.append(batch._replace(old_logprobs=old, on_policy=jnp.zeros_like(batch.on_policy)))
    return state, scored


def to_batch(run: Run, rows: Sequence[Row]) -> TrainBatch:
    """TrainBatch of this run's one shape; with a KL term, scored by the reference policy as well."""
    shapes, config = run.engine.shapes, run.config
    ref = None
    if config.loss.kl_coef:
        ref = run.engine.score(
            run.policy.params,
            [r.prompt for r in rows],
            [r.completion for r in rows],
            temperature=config.rollout.temperature,
        )
    return batching.pack_rows(
        rows,
        num_rows=train_rows(config, run.method),
        prompt_length=prompt_columns(config, shapes),
        completion_length=shapes.completion,
        pad_id=run.policy.tokenizer.pad_token_id,
        ref_logprobs=ref,
    )


# Sampling stages by the first word of their name; all others belong to repairs.
_TIMED_AS = {"policy": "generate", "locate": "locate"}


def bind_stages(
    run: Run,
    params: Params,
    key: jax.Array,
    verify: VerifyFn,
    clock: timing.Clock,
    companion: Companion | None = None,
) -> base.Stages:
    """The functions that a method may call, with this update's parameters and key in them, timed."""
    engine, tokenizer, task, prompts = run.engine, run.policy.tokenizer, run.task, run.prompts
    params = whole_params(run, params)
    temperature = run.config.rollout.temperature

    def sample(prompts, *, stage, num_samples=1, temperature=temperature, prefixes=None):
        with clock.time(_TIMED_AS.get(re.split("[-/]", stage)[0], "repair")):
            return engine.sample(
                params,
                key,
                prompts,
                stage=stage,
                num_samples=num_samples,
                temperature=temperature,
                prefixes=prefixes,
            )

    def timed_verify(problems, texts):
        with clock.time("verify"):
            return verify(problems, texts)

    def align(failed, repaired):
        with clock.time("align"):
            return engine.align(failed, repaired)

    return base.Stages(
        sample=sample,
        score=_scorer(run, params, clock),
        verify=timed_verify,
        align=align,
        policy_prompt=prompts.policy,
        repair_prompt=lambda problem, failed, anchor: prompts.repair(
            problem, failed.text, anchor.text
        ),
        encode=prompts.completion,
        decode=lambda tokens: tokenizers.decode_completion(tokenizer, tokens),
        pieces=run.pieces,
        first_error=getattr(task, "first_error", None),
        answer_marker=task.answer_marker,
        step_separator=task.step_separator,
        reference=_scorer(run, run.policy.params, clock),
        companion=companion,
        **judges.bind(run.judges, params, key, clock, engine),
    )


def _scorer(run: Run, params: Params, clock: timing.Clock) -> ScoreFn:
    def score(prompts, completions):
        with clock.time("score"):
            return run.engine.score(
                params, prompts, completions, temperature=run.config.rollout.temperature
            )

    return score


class Writers:
    """Several metric writers as one."""

    def __init__(self, writers: Sequence[metrics.MetricWriter]):
        self.writers = list(writers)

    def phase(self, name: str) -> None:
        for writer in self.writers:
            writer.phase(name)

    def write(self, update: int, values: dict[str, float]) -> None:
        for writer in self.writers:
            writer.write(update, values)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


def save_policy(run: Run, params: Params) -> None:
    """The trained policy as a folder that `load_policy` reads."""
    policy = dataclasses.replace(run.policy, params=whole_params(run, params))
    policies.save_policy(run.folder / "policy", policy)
