r"""What is left to compute in an answer: 6-1, 5! and sin(30) are no final answers.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

from fractions import Fraction

from jaxrl_reason.verify import sameness

LITERAL = frozenset(("num", "neg", "div", "pow", "pct", "add", "mul", "fact", "binom"))


def is_finished(gold: tuple) -> bool:
    """Whether a gold answer is a rational number with nothing left to do."""
    found = operations(gold)
    return not found and not any(n[0] in ("root", "const", "func") for n in sameness.nodes(gold))


def operations(tree: tuple) -> frozenset[str]:
    """Operations left to do: sums and products of plain numbers, factorials, constant functions."""
    if tree[0] == "rel":
        return operations(tree[-1]) if set(tree[1]) == {"="} else frozenset()
    found, stack = set(), [tree]
    polar = ("const", "i") in sameness.nodes(tree)
    while stack:
        node = stack.pop()
        children = [n for n in node[1:] if isinstance(n, tuple) and n and isinstance(n[0], str)]
        stack += children
        if node[0] in ("fact", "binom") and not sameness.variables(node):
            found.add(node[0])
        elif node[0] == "func" and node[1] != "exp" and not sameness.variables(node):
            if not polar:  # cos a + i sin a is left like that
                found.add("func")
        elif node[0] == "pow" and all(_literal(n) for n in children):
            found.add("pow")  # no answer is refused for one, but a gold power is left undone too
        elif node[0] in ("add", "mul") and all(_literal(n) for n in children):
            if not (node[0] == "mul" and _power_of_ten(node[2])):
                found.add(node[0])
    return frozenset(found)


def _literal(tree: tuple) -> bool:
    stack = [tree]
    while stack:
        node = stack.pop()
        if node[0] not in LITERAL:
            return False
        if node[0] == "pow" and not _whole_exponent(node[2]):
            return False  # a radical, which has no shorter form
        stack += [n for n in node[1:] if isinstance(n, tuple)]
    return True


def _whole_exponent(tree: tuple) -> bool:
    tree = tree[1] if tree[0] == "neg" else tree
    return tree[0] == "num" and tree[1].denominator == 1


def _power_of_ten(tree: tuple) -> bool:
    return tree[0] == "pow" and tree[1] == ("num", Fraction(10))
