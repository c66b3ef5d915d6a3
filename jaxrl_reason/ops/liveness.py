"""How much memory a program needs at once, from its jaxpr alone: nothing is compiled, no array is made.

Host side. Reads: a jaxpr. Writes: nothing.

Values are made in the order of the program and freed after their last use. What the compiler will surely do is taken
into account: a reshape is free, a sum of two arrays takes the place of one that dies, a loop carries its state in
place. What it may do besides (fusing, reordering) makes the true figure smaller or larger by some tens of per cent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

# bytes of one value, by its abstract value
SizeFn = Callable[[Any], int]

# The output is the input, looked at in another way.
_VIEWS = frozenset("reshape squeeze expand_dims stop_gradient copy sharding_constraint".split())
# Written into what reads it.
_FREE = frozenset("broadcast_in_dim iota".split())
# The output cannot take the place of an input that dies.
_APART = frozenset(
    "dot_general ragged_dot ragged_dot_general conv_general_dilated sort gather transpose pallas_call concatenate pad"
    " dynamic_slice slice cumsum top_k".split()
)


def nbytes(aval: Any) -> int:
    """Bytes of a whole array; a random key counts as its four words.

    Example:
      >>> nbytes(jax.ShapeDtypeStruct((2, 3), "bfloat16"))
      12
    """
    if not hasattr(aval, "shape") or not hasattr(aval, "dtype"):
        return 0
    return math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 16)


def peak_bytes(
    function: Callable,
    *arguments: Any,
    size_fn: SizeFn = nbytes,
    free_arguments: Collection[int] = (),
) -> int:
    """Most bytes alive at once while a function runs, its arguments and results included.

    Args:
      function: as for `jax.jit`.
      *arguments: pytrees of arrays or ShapeDtypeStructs.
      size_fn: bytes of a value outside of every loop; inside, all arrays are whole.
      free_arguments: numbers of arguments that are not counted.
    Returns:
      Bytes.
    Example:
      >>> x = jax.ShapeDtypeStruct((1000,), "float32")
      >>> peak_bytes(lambda x: (x * 2).sum(), x), peak_bytes(lambda x: (x @ x) * x, x)
      (8000, 8000)
    """
    closed = jax.make_jaxpr(function)(*arguments)
    counts = [len(jax.tree.leaves(argument)) for argument in arguments]
    paid = [i not in free_arguments for i, count in enumerate(counts) for _ in range(count)]
    invars = closed.jaxpr.invars
    kept = sum(size_fn(v.aval) for v, pay in zip(invars, paid, strict=True) if pay)
    return kept + _peak(closed.jaxpr, size_fn, ())


def _peak(jaxpr: Any, size_fn: SizeFn, owned: Collection[Any]) -> int:
    """Most bytes of what is made inside; `owned` inputs count until their last use, others not at all."""
    roots, last = _lifetimes(jaxpr)
    sizes = {var: size_fn(var.aval) for var in owned}
    live = peak = sum(sizes.values())
    for at, equation in enumerate(jaxpr.eqns):
        name = equation.primitive.name
        dying = {
            root
            for var in equation.invars
            if not isinstance(var, core.Literal)
            for root in roots[var]
            if root in sizes and last[root] == at
        }
        freed = sum(sizes[root] for root in dying)
        made = {}
        if name not in _VIEWS and name not in _FREE:
            made = {v: size_fn(v.aval) for v in equation.outvars if v in last}
        inside = _inside(equation, dying, size_fn)
        out = sum(size_fn(v.aval) for v in equation.outvars) if name not in _VIEWS | _FREE else 0
        if inside is None:
            moment = live + out - (0 if name in _APART else min(freed, out))
        elif name in ("scan", "while"):
            moment = live + out - min(freed, out) + inside
        else:  # what it makes is made inside
            moment = live - freed + max(inside, out)
        peak = max(peak, moment)
        for root in dying:
            del sizes[root]
        sizes |= made
        live += sum(made.values()) - freed
    return peak


def _lifetimes(jaxpr: Any) -> tuple[dict[Any, tuple[Any, ...]], dict[Any, int]]:
    """({variable: those whose memory it is}, {those: number of the equation that uses them last})."""
    roots: dict[Any, tuple[Any, ...]] = {v: (v,) for v in (*jaxpr.invars, *jaxpr.constvars)}
    last: dict[Any, int] = {}

    def use(variables: Sequence[Any], at: int) -> None:
        for var in variables:
            if not isinstance(var, core.Literal):
                last.update(dict.fromkeys(roots[var], at))

    for at, equation in enumerate(jaxpr.eqns):
        use(equation.invars, at)
        source = equation.invars[0] if equation.invars else None
        for var in equation.outvars:
            is_view = equation.primitive.name in _VIEWS and not isinstance(source, core.Literal)
            roots[var] = roots[source] if is_view else (var,)
    use(jaxpr.outvars, len(jaxpr.eqns))
    return roots, last


def _inside(equation: Any, dying: Collection[Any], size_fn: SizeFn) -> int | None:
    """Most bytes that the bodies of a loop, branch or call make; None: there is no body."""
    if equation.primitive.name == "pallas_call":
        return None
    bodies = [b for b in map(_open, _values(equation.params)) if b is not None]
    if not bodies:
        return None
    if equation.primitive.name == "scan":
        (body,) = bodies
        # What a step reads of each array that is looped over; constants and the carry are inside as they are outside.
        steps = [
            v for v, o in zip(body.invars, equation.invars, strict=True) if _rank(v) < _rank(o)
        ]
        return _peak(body, nbytes, steps)
    if equation.primitive.name == "while":
        return max(_peak(body, nbytes, ()) for body in bodies)
    peaks = []
    for body in bodies:
        outer = equation.invars[-len(body.invars) :] if body.invars else []
        owned = [v for v, o in zip(body.invars, outer, strict=False) if _in(o, dying)]
        peaks.append(_peak(body, size_fn, owned))
    return max(peaks)


def _rank(var: Any) -> int:
    return len(getattr(var.aval, "shape", ()))


def _in(var: Any, variables: Collection[Any]) -> bool:
    return not isinstance(var, core.Literal) and var in variables


def _values(params: Mapping[str, Any]) -> list[Any]:
    return [
        x for value in params.values() for x in (value if isinstance(value, tuple) else (value,))
    ]


def _open(value: Any) -> Any:
    """The jaxpr in a parameter of an equation, if there is one."""
    if isinstance(value, core.ClosedJaxpr):
        return value.jaxpr
    return value if isinstance(value, core.Jaxpr) else None
