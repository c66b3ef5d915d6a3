r"""Plus-minus written out: both readings of an expression, and of an entry of a list.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

from jaxrl_reason.verify import sameness


def written_out(tree: tuple) -> list[tuple]:
    """Both readings of an expression with plus-minus: all upper signs, all lower signs."""
    if not contains(tree, ("pm", "mp")):
        return [tree]

    def take(node: tuple, upper: bool) -> tuple:
        if not isinstance(node, tuple) or not node or isinstance(node[0], tuple):
            return node
        children = tuple(take(n, upper) if isinstance(n, tuple) else n for n in node[1:])
        if node[0] in ("pm", "mp"):
            plus = (node[0] == "pm") == upper
            right = children[1] if plus else _negated(children[1])
            return right if children[0] == ("num", 0) else ("add", children[0], right)
        return (node[0], *children)

    return [take(tree, True), take(tree, False)]


def both(item: tuple) -> list[tuple]:
    """x = +-1 among other entries is two of them."""
    if item[0] == "rel" and item[1] == ("=",) and item[2][0] == "var":
        return [("rel", *item[1:3], side) for side in written_out(item[3])]
    return [item]


def _negated(tree: tuple) -> tuple:
    if tree[0] == "seq":
        return (*tree[:3], *(("neg", item) for item in tree[3:]))
    return ("neg", tree)


def contains(tree: tuple, kinds: tuple[str, ...]) -> bool:
    """Whether a node of one of the kinds is in a tree."""
    return any(node[0] in kinds for node in sameness.nodes(tree))
