"""Training of a process reward model, and its examination: labelled steps in, P(right so far) at each step's end out.

Host side; drives the device. Reads: a policy or a process reward model; a JSONL file of labels, or solutions that the
policy writes; checkpoints. Writes, in run_dir: config.json, labels.jsonl with what was labelled here, metrics.jsonl,
checkpoints/N/, and prm/ with evaluation.json.

A model may judge in reinforcement learning only once its F1 on labelled solutions is known, so it is saved with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from jaxrl_reason import config as config_lib
from jaxrl_reason import (
    metrics,
    parts,
    sharding,
    signals,
    solutions,
    supervised,
)
from jaxrl_reason.algos import step_loss
from jaxrl_reason.credit import locate_steps
from jaxrl_reason.models import prm as prms
from jaxrl_reason.rollout import batching, judges, step_scores
from jaxrl_reason.tasks import schedule
from jaxrl_reason.types import Params, TrainState
from jaxrl_reason.verify import processbench, step_labels

# Problems that no RL run and no cold start reaches, to learn from and to be examined on.
_TRAIN_PROBLEMS, _EXAM_PROBLEMS = 30_000_000, 40_000_000
_THRESHOLDS = [round(0.05 * i, 2) for i in range(1, 20)]


class StepBatch(NamedTuple):
    """Rows of one update."""

    tokens: np.ndarray  # [B, T] int32
    token_mask: np.ndarray  # [B, T] bool
    targets: np.ndarray  # [B, T] float32
    label_mask: np.ndarray  # [B, T] bool


def train_prm(
    config: ml_collections.ConfigDict,
    *,
    task: Any = None,
    policy: Any = None,
    mesh: jax.sharding.Mesh | None = None,
    resume: bool = False,
) -> pathlib.Path:
    """Minimise the cross-entropy of step labels; evaluate; returns the model's folder.

    Args:
      config: reads prm, model, task, mesh, rollout, locate (budgets, threshold, and for Monte-Carlo labels the search),
        optim.microbatch_rows, train (checkpoints, grace).
      task: default `config.task`.
      policy: trunk to start from, and author of the solutions; default `config.model.source`.
      mesh: devices; default all of them, as `config.mesh` says.
      resume: go on from the run folder's latest checkpoint, bitwise as if never stopped.
    Returns:
      run_dir/prm. Where a signal ended the run it is not there yet.
    Raises:
      FileExistsError: run_dir already holds a run or a process reward model, and `resume` is False.
      FloatingPointError: the loss is not finite.
      ValueError: an unusable file (with its line), labels that the task cannot give, or nothing to learn from.
    """
    config_lib.validate(config)
    sharding.check_one_process()
    folder = pathlib.Path(config.run_dir)
    if (folder / "prm").exists() and not resume:
        raise FileExistsError(
            f"{folder}/prm exists; choose another --config.run_dir, or go on with --resume"
        )
    with contextlib.ExitStack() as closing:
        claim, store = closing.enter_context(
            parts.entered(config, resume=resume, data=("prm.path", "prm.eval_path"))
        )
        run = parts.make_run(config, task=task, policy=policy, mesh=mesh)
        if not config.prm.eval_path and not hasattr(run.task, "first_error"):
            raise ValueError(
                f"prm.eval_path = '': task {run.task.name!r} cannot judge steps itself, so an examination needs"
                " labelled solutions; set it to a JSON file of ProcessBench"
            )
        prm = _first_prm(run)
        claim.write()
        state, progress = _first_state(run, prm), parts.Progress()
        if claim.update is not None:
            state, meta = store.restore(state)
            progress = parts.Progress(**meta)
        writers = parts.Writers(
            metrics.open_writers(
                folder,
                num_updates=max(config.prm.updates, 1),
                tensorboard=False,
                resumed_from=claim.resumed_from,
            )
        )
        closing.callback(writers.close)
        stop = closing.enter_context(signals.stopping(parts.grace_s(config)))
        session = supervised.Session(config, store, writers, stop, state, progress)
        if progress.update < config.prm.updates:
            _fit(run, prm, session)
        store.wait()
        if progress.update == config.prm.updates and not stop.is_set():
            _examine(run, dataclasses.replace(prm, params=session.state.params), session)
    return folder / "prm"


def _examine(run: parts.Run, prm: prms.Prm, session: supervised.Session) -> None:
    """Evaluate the model and save it."""
    session.writers.phase("evaluating")
    with session.stop.droppable(session.keep):
        evaluation = _evaluation(run, prm)
        session.writers.write(run.config.prm.updates, {"prm/f1": evaluation["scores"]["f1"]})
        prms.save_prm(run.folder / "prm", prm, evaluation)


def _first_state(run: parts.Run, prm: prms.Prm) -> TrainState:
    # The update donates its state, and the model's own arrays stay.
    params = jax.tree.map(jnp.copy, prm.params)
    opt_state = _make_optimizer(run.config.prm).init(params)
    state = TrainState(jnp.int32(0), params, opt_state, jax.random.key(run.config.seed))
    # Moments lie beside their parameters; where a count lies, an update leaves it, and what it then gets compiles once.
    everywhere = sharding.replicated(run.mesh)
    return jax.tree.map(lambda x: x if x.ndim else jax.device_put(x, everywhere), state)


def _first_prm(run: parts.Run) -> prms.Prm:
    """The model to train: `prm.start`, or the policy's trunk under a fresh head."""
    config = run.config
    if config.prm.start:
        return prms.load_prm(config.prm.start, dtype=config.model.dtype, mesh=run.mesh)
    vocabulary = run.policy.tokenizer.get_vocab()
    default = prms.STEP_END if prms.STEP_END in vocabulary else run.task.step_separator
    return prms.new_prm(
        run.policy,
        jax.random.key(config.seed),
        step_end=config.prm.step_end or default,
        chat="<|im_start|>" in vocabulary,
        mesh=run.mesh,
    )


# --- labels ----------------------------------------------------------------------------------------


def _labelled(run: parts.Run, prm: prms.Prm) -> list[step_labels.Labelled]:
    """Solutions with a label per step, from a file or written by the policy: those are kept in labels.jsonl."""
    config = run.config.prm
    readers = {"trl": step_labels.read_trl, "prm800k": step_labels.read_prm800k}
    if config.labels in readers:
        return readers[config.labels](config.path)
    kept = run.folder / "labels.jsonl"
    if kept.exists():  # of a run that is resumed
        records = supervised.read_lines(kept)
        return [
            step_labels.Labelled(r["prompt"], tuple(r["steps"]), tuple(r["labels"]))
            for r in records
        ]
    question = judges.question_fn(prm, run.task)
    wanted = config.solutions
    labelled = [
        step_labels.from_first_error(question(s.problem), s.steps, s.numbers, s.error)
        for s in solutions.sample(run, _TRAIN_PROBLEMS, wanted, by=config.labels)
    ]
    if not labelled:
        raise ValueError(
            f"prm.labels = {config.labels!r}: none of {wanted} solutions could be labelled;"
            " start from a policy that sometimes solves the problems, or raise prm.solutions"
        )
    supervised.write_lines(kept, (solution._asdict() for solution in labelled))
    return labelled


# --- training --------------------------------------------------------------------------------------


class _Row(NamedTuple):
    ids: list[int]
    places: list[int]  # where labelled steps end
    values: np.ndarray  # [len(places)] float32


def rows_of(
    prm: prms.Prm,
    labelled: Sequence[step_labels.Labelled],
    *,
    max_tokens: int,
    hard_above: float | None,
    drop_after_error: bool,
) -> list[_Row]:
    """Training rows; solutions in which no labelled step fits are left out."""
    rows = []
    for solution in labelled:
        question = prms.question_ids(prm, solution.prompt)
        ids, places = prms.step_row(prm, question, solution.steps, max_tokens)
        values, known = step_labels.targets(
            solution.labels, hard_above=hard_above, drop_after_error=drop_after_error
        )
        keep = np.flatnonzero(known[: len(places)])
        if len(keep):
            # What comes after the last label is seen by no label.
            end = places[keep[-1]] + 1
            rows.append(_Row(ids[:end], [places[i] for i in keep], values[keep]))
    return rows


def pack(rows: Sequence[_Row], *, num_rows: int, width: int) -> StepBatch:
    """[num_rows, width] arrays; missing rows are padding without labels."""
    tokens, mask = batching.pad_right([row.ids for row in rows], width, num_rows, 0)
    targets, labels = np.zeros(tokens.shape, np.float32), np.zeros(tokens.shape, bool)
    for i, row in enumerate(rows):
        targets[i, row.places], labels[i, row.places] = row.values, True
    return StepBatch(tokens, mask, targets, labels)


def _fit(run: parts.Run, prm: prms.Prm, session: supervised.Session) -> None:
    """Label, and take the updates that are left."""
    config, max_tokens = run.config.prm, _max_tokens(run)
    session.writers.phase("labelling")
    with session.stop.droppable(session.keep):
        rows = rows_of(
            prm,
            _labelled(run, prm),
            max_tokens=max_tokens,
            hard_above=config.hard_above if config.targets == "hard" else None,
            drop_after_error=config.after_error == "drop",
        )
    if session.stop.dropped:
        return
    if not rows:
        raise ValueError(
            f"no labelled step ends within {max_tokens} tokens; raise locate.prm_tokens"
        )
    shards = sharding.row_shards(run.mesh)
    micro = min(run.config.optim.microbatch_rows, -(-config.batch_rows // shards) * shards)
    num_rows = -(-config.batch_rows // micro) * micro
    update = make_update(prm, _make_optimizer(config), mesh=run.mesh, microbatch_rows=micro)

    def step(state: TrainState, batch: StepBatch):
        params, opt_state, loss = update(state.params, state.opt_state, batch)
        return state._replace(
            num_updates=state.num_updates + 1, params=params, opt_state=opt_state
        ), loss

    batch = functools.partial(_batch, run, rows, num_rows)
    supervised.run(session, config.updates, batch, step)


def _batch(
    run: parts.Run, rows: Sequence[_Row], num_rows: int, session: supervised.Session
) -> supervised.Batch:
    """Rows of one update, from shuffled epochs."""
    config = run.config
    session.writers.phase("training")
    chosen = schedule.epoch_indices(
        len(rows), config.seed, session.progress.update, config.prm.batch_rows
    )
    part = [rows[i] for i in chosen]
    longest = max(len(row.ids) for row in part)
    width = batching.pick_bucket(step_scores.widths(_max_tokens(run)), longest)
    packed = pack(part, num_rows=num_rows, width=width)
    arrays = sharding.to_global(packed, sharding.batch_sharding(run.mesh))
    tokens, trained = int(packed.token_mask.sum()), int(packed.label_mask.sum())
    return supervised.Batch(arrays, "prm/loss", tokens, trained)


def _max_tokens(run: parts.Run) -> int:
    return run.config.locate.prm_tokens or step_scores.longest_row(run.engine.shapes)


def _make_optimizer(config: ml_collections.ConfigDict) -> Any:
    rates = supervised.warm_cosine(config.learning_rate, config.updates)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rates, b2=0.98))


def make_update(
    prm: prms.Prm, optimizer: Any, *, mesh: jax.sharding.Mesh, microbatch_rows: int
) -> Any:
    """Jitted (params, optimizer state, StepBatch) -> (params, optimizer state, mean loss per label).

    Args:
      prm: its sizes are used, its parameters are not.
      optimizer: an optax transformation.
      mesh: devices.
      microbatch_rows: rows whose activations are alive at once; divides the rows of a batch. The denominator is that of
        the whole batch, so the gradient does not depend on it.
    Returns:
      The function; it reuses the memory of its first two arguments.
    """

    def loss_fn(params, part, labels):
        logits = prms.logits(prm.config, params, part.tokens, part.token_mask, mesh=mesh)
        return step_loss.step_cross_entropy(logits, part.targets, part.label_mask) / labels

    def update(params: Params, opt_state: Any, batch: StepBatch):
        labels = jnp.maximum(jnp.sum(batch.label_mask), 1).astype(jnp.float32)
        split = jax.tree.map(lambda x: x.reshape(-1, microbatch_rows, x.shape[-1]), batch)

        def add(total, part):
            part = jax.tree.map(lambda x: sharding.constrain(x, mesh, ("rows", None)), part)
            loss, gradient = jax.value_and_grad(loss_fn)(params, part, labels)
            gradient = jax.tree.map(lambda g: g.astype(jnp.float32), gradient)
            return jax.tree.map(jnp.add, total, (loss, gradient)), None

        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        (loss, gradient), _ = jax.lax.scan(add, (jnp.float32(0), zeros), split)
        gradient = jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, params)
        changes, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, changes), opt_state, loss

    return jax.jit(update, donate_argnums=(0, 1))


# --- examination -----------------------------------------------------------------------------------


def _evaluation(run: parts.Run, prm: prms.Prm) -> dict[str, Any]:
    """What evaluation.json holds."""
    config = run.config
    if config.prm.eval_path:
        records, name = processbench.read(config.prm.eval_path), config.prm.eval_path
        name = pathlib.Path(name).name
    else:
        records, name = (
            solutions.exam(
                run, _EXAM_PROBLEMS, config.prm.eval_solutions, judges.question_fn(prm, run.task)
            ),
            f"{run.task.name}, solutions of the policy, step oracle",
        )
    scorer = step_scores.StepScorer(
        prm,
        max_tokens=_max_tokens(run),
        chunk_rows=run.engine.shapes.chunk_rows,
        mesh=run.mesh,
    )
    threshold = config.locate.prm_threshold
    by_threshold = scores_by_threshold(scorer, records, [*_THRESHOLDS, threshold])
    best = max(_THRESHOLDS, key=lambda t: by_threshold[t].f1)
    trained = {name: config.prm[name] for name in ("labels", "targets", "updates", "solutions")}
    return {
        "set": name,
        "threshold": threshold,
        "scores": by_threshold[threshold]._asdict(),
        "best_threshold": best,
        "f1_by_threshold": {f"{t:g}": by_threshold[t].f1 for t in sorted(by_threshold)},
        "tokens_read": scorer.tokens_read,
        "seconds": round(scorer.seconds, 3),
        "training": trained,
    }


def scores_by_threshold(
    scorer: step_scores.StepScorer,
    records: Sequence[processbench.Record],
    thresholds: Sequence[float],
) -> dict[float, processbench.Scores]:
    """Scores of the first step below each threshold; all solutions are read once.

    Args:
      scorer: of the model.
      records: labelled solutions; `problem` is what the model reads before the first step.
      thresholds: each in (0, 1].
    Returns:
      {threshold: Scores}.
    """
    scored = scorer([r.problem for r in records], [r.steps for r in records])
    labels = [record.label for record in records]
    found = {}
    for threshold in thresholds:
        said = [
            locate_steps.first_below(rewards, len(record.steps), threshold)
            for rewards, record in zip(scored.rewards, records, strict=True)
        ]
        found[threshold] = processbench.score(labels, said)
    return found
