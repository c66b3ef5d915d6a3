r"""What is read of an answer between brackets of every kind: tuples, sets, matrices, arguments.

Host side. Reads: nothing. Writes: nothing.

The part of `verify.grammar` that asks for what a bracket encloses; its levels of precedence, which
the methods here call, are there.
"""

from __future__ import annotations

from fractions import Fraction

from jaxrl_reason.verify import cursor, names, vocabulary
from jaxrl_reason.verify.lexer import Unreadable


class Enclosed(cursor.Cursor):
    """Brackets, fences, environments and the arguments of functions."""

    def _bracket(self, opener: str) -> tuple:
        if self.sees(")", "]"):
            raise Unreadable("empty brackets")
        self.open += 1
        tree = self.items()
        self.open -= 1
        closer = self.expect(*vocabulary.CLOSERS[opener]).text
        if opener == "]" or closer == "[":  # ]2, 5[ is (2, 5)
            opener = "(" if opener == "]" else opener
            closer = ")" if closer == "[" else closer
            if tree[0] != "list" or len(tree) != 3:
                raise Unreadable("an interval without its two ends")
        if tree[0] != "list":
            if (opener, closer) in (("(", ")"), ("[", "]")):
                return tree
            raise Unreadable("one entry between brackets of two kinds")
        return ("seq", opener, closer, *tree[1:])

    def _set(self) -> tuple:
        if self.sees("}", "rbrace"):
            self.take()
            return ("empty",)
        bars, self.bars = self.bars, 1  # a bar in a set parts name and condition
        tree = self.items()
        if self.sees("|", "mid", ":"):
            self.take()
            condition = self.items()
            self.expect("}", "rbrace")
            self.bars = bars
            found = names.built(tree, condition)  # {x | x > 0} is the same as x > 0
            if found is None:
                raise Unreadable("a set whose condition is on nothing that is in it")
            return found
        self.bars = bars
        self.expect("}", "rbrace")
        return ("set", *(tree[1:] if tree[0] == "list" else (tree,)))

    def _fenced(self, name: str) -> tuple:
        tree = self.items()
        self.expect("r" + name[1:])
        if name == "langle":
            return ("seq", "(", ")", *(tree[1:] if tree[0] == "list" else (tree,)))
        return ("func", {"lfloor": "floor", "lceil": "ceil", "lvert": "abs"}[name], tree)

    def _call(self, name: str) -> tuple:
        exponent = base = None
        if name == "log" and self.sees("_"):
            self.take()
            base = self._argument()
        if self.sees("^"):
            self.take()
            exponent = self._argument()
            if exponent == ("neg", ("num", Fraction(1))) and name in vocabulary.INVERSES:
                name, exponent = vocabulary.INVERSES[name], None
        if self.sees("(", "{"):
            opener = self.take().text
            inner = self.items()
            self.expect(")" if opener == "(" else "}")
            arguments = inner[1:] if inner[0] == "list" else (inner,)
        else:
            arguments = (self._bare_argument(),)
        if base is not None:
            name, arguments = "log_base", (base, *arguments)
        tree = ("func", name, *arguments)
        return tree if exponent is None else ("pow", tree, exponent)

    def _bare_argument(self) -> tuple:
        tree = self.signed()
        while (token := self.here()) and (
            token.kind in ("num", "word")
            or token.kind == "cmd"
            and token.text in vocabulary.LETTERS | {"pi"}
        ):
            tree = ("mul", tree, self.power())
        if self.sees("/") and self.here(1) and self.here(1).kind == "num":
            self.take()
            tree = ("div", tree, self.power())  # \sin \pi/3
        return tree

    def _cases(self) -> tuple:
        """A system of equations; what holds under conditions is not read."""
        rows = []
        while not self.sees("end"):
            rows.append(self.relation())
            if rows[-1][0] != "rel":
                raise Unreadable("a case that is no equation")
            if self.sees(","):
                self.take()
            if not self.sees("end"):
                self.expect("\\")
        for _ in range(4):  # \end { cases }
            self.take()
        return ("list", *rows)

    def _matrix(self) -> tuple:
        self.expect("{")
        kind = self.take().text
        self.expect("}")
        if kind == "cases":
            return self._cases()
        if kind not in ("pmatrix", "bmatrix", "matrix", "array", "Bmatrix", "smallmatrix"):
            raise Unreadable(f"the environment {kind!r}")
        if kind == "array":
            self.flat()
        rows: list[list[tuple]] = [[]]
        while not self.sees("end"):
            rows[-1].append(self.sum())
            if self.sees("\\"):
                self.take()
                if not self.sees("end"):
                    rows.append([])
            elif not self.sees("end"):
                self.expect("&")
        for _ in range(4):  # \end { kind }
            self.take()
        if len({len(row) for row in rows}) != 1:
            raise Unreadable("rows of different lengths")
        return ("matrix", len(rows[0]), *(entry for row in rows for entry in row))
