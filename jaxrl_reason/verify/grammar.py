r"""Answer text to an expression tree, by recursive descent over `verify.lexer`'s tokens.

Host side. Reads: nothing. Writes: nothing.

A tree is a tuple whose first entry is its kind:
  values     ("num", Fraction), ("var", name), ("const", "pi" | "e" | "i"), ("inf",),
             ("add" | "mul" | "div" | "pow", a, b), ("neg" | "fact" | "pct" | "deg", a),
             ("root", degree, a), ("binom", n, k), ("func", name, *arguments), ("pm" | "mp", a, b)
  others     ("list", *items) without brackets, ("set", *items), ("seq", open, close, *items),
             ("matrix", columns, *entries), ("union" | "minus", *sets), ("ratio", *terms),
             ("rel", operators, *sides), ("based", digits, base), ("empty",)
Nothing is computed here but the values of digits.
"""

from __future__ import annotations

import functools
from fractions import Fraction

from jaxrl_reason.verify import enclosed, lexer, vocabulary
from jaxrl_reason.verify.lexer import Token, Unreadable

MAX_DEPTH = 20  # of brackets, fractions, exponents
MAX_HEIGHT = 100  # of a tree, to which a long sum adds a level with each term


def parse(text: str) -> tuple:
    r"""Tree of cleaned text; several items without brackets make a list.

    Args:
      text: what `lexer.clean` returned.
    Returns:
      The tree; see the top of this module.
    Raises:
      Unreadable: no answer this grammar knows, or too large or deep a one.
    Example:
      >>> parse(r"\sqrt{2}")
      ('root', ('num', Fraction(2, 1)), ('num', Fraction(2, 1)))
    """
    parser = _Parser(vocabulary.split_words(lexer.tokenize(text)))
    tree = parser.items()
    if parser.here() is not None:
        raise Unreadable(f"unexpected {parser.here().text!r}")
    if _height(tree) > MAX_HEIGHT:
        raise Unreadable(f"a tree of over {MAX_HEIGHT} levels")
    return tree


def _height(tree: tuple) -> int:
    height, level = 0, [tree]
    while level:
        height += 1
        level = [n for node in level for n in node if isinstance(n, tuple)]
    return height


class _Parser(enclosed.Enclosed):
    """One method for each level of precedence, loosest first."""

    def items(self) -> tuple:
        found = [self.relation()]
        while True:
            separated = False
            while (
                self.sees(",", ";")
                or self.sees("lor", "land", "and", "or", kinds=("cmd", "text"))
                or self.sees("cup", "vee", "wedge")  # x < 1 \cup x > 3
            ):
                self.take()
                separated = True
            if not separated:
                break
            found.append(self.relation())
        tree = found[0] if len(found) == 1 else ("list", *found)
        if self.sees("over", "choose"):
            infix = self.take().text
            return ("div" if infix == "over" else "binom", tree, self.items())
        return tree

    def relation(self) -> tuple:
        sides, operators = [self.ratio()], []
        while (
            (token := self.here()) and token.kind != "text" and token.text in vocabulary.RELATIONS
        ):
            self.take()
            operators.append(vocabulary.RELATIONS[token.text])
            sides.append(self.ratio())
        return ("rel", tuple(operators), *sides) if operators else sides[0]

    def ratio(self) -> tuple:
        terms = [self.union()]
        while self.sees(":") or self.sees("to", kinds=("text",)):
            if self.bars and (terms[0][0] in ("var", "seq") or self.relation_follows()):
                break  # {x : x > 0}
            self.take()
            if self.sees("="):  # :=
                self.at -= 1
                self.tokens[self.at] = Token("op", "=", False)
                del self.tokens[self.at + 1]
                break
            terms.append(self.union())
        return ("ratio", *terms) if len(terms) > 1 else terms[0]

    def union(self) -> tuple:
        sets = [self.sum()]
        while self.sees("cup") or self.sees("U", kinds=("word",)):
            if self.relation_follows():
                break
            self.take()
            sets.append(self.sum())
        if self.sees("setminus", "backslash"):
            self.take()
            return ("minus", sets[0], self.sum())
        return ("union", *sets) if len(sets) > 1 else sets[0]

    def sum(self) -> tuple:
        if self.sees("pm", "mp"):
            tree = (self.take().text, ("num", Fraction(0)), self.product())
        else:
            tree = self.product()
        while self.sees("+", "-", "pm", "mp"):
            operator = self.take().text
            right = self.product()
            if operator == "-" and right[0] in ("set", "empty"):
                tree = ("minus", tree, right)
            elif operator in "+-":
                tree = ("add", tree, right if operator == "+" else ("neg", right))
            else:
                tree = (operator, tree, right)
        return tree

    def product(self) -> tuple:
        tree = self.signed()
        while True:
            if self.sees("*", "cdot", "times", "ast"):
                self.take()
                tree = ("mul", tree, self.signed())
            elif self.sees("/", "div"):
                self.take()
                tree = ("div", tree, self.signed())
            elif self._starts_factor():
                tree = ("mul", tree, self.power())
            else:
                return tree

    def _starts_factor(self) -> bool:
        token = self.here()
        if token is None or token.kind == "text":
            return token is not None and len(token.text.strip()) == 1
        if token.kind == "num":
            before = self.tokens[self.at - 1]
            return before.kind not in ("num", "word") and before.text != "circ"
        if token.kind == "word":
            return not (token.text == "U" and self.sees("(", "[", "{", ahead=1))
        if token.kind == "op":
            if token.text == "[" and self.closes_backwards():
                return False
            return token.text in ("(", "{", "[") or token.text == "|" and not self.bars
        return token.text in vocabulary.PRIMARY_COMMANDS

    def signed(self) -> tuple:
        signs = 0
        while self.sees("+", "-"):
            signs += self.take().text == "-"
            if self.sees("+", "-"):
                raise Unreadable("two signs in a row")
        return ("neg", self.power()) if signs else self.power()

    def power(self) -> tuple:
        base = self.primary()
        while True:
            if self.sees("!"):
                self.take()
                if self.sees("!"):
                    raise Unreadable("a double factorial")
                base = ("fact", base)
            elif self.sees("%"):
                self.take()
                base = ("pct", base)
            elif self.sees("'"):
                self.take()
                base = vocabulary.marked(base, "'")
            elif self.sees("_"):
                self.take()
                base = vocabulary.with_subscript(base, self.flat())
            elif self.sees("^", "**"):
                self.take()
                base = self._raised(base)
            elif base[0] == "var" and self.at_zero():
                self.at += 3
                base = ("var", f"{base[1]}(0)")  # a starting value, not I times 0
            else:
                return base

    def _raised(self, base: tuple) -> tuple:
        braced = self.sees("{")
        first = self.here(1 if braced else 0)
        if first is not None and first.text in ("circ", "prime", "*", "ast", "degree"):
            mark = self.flat()
            return ("deg", base) if mark in ("circ", "degree") else vocabulary.marked(base, mark)
        if base == vocabulary.REALS and first is not None and first.text in ("+", "-"):
            return vocabulary.HALVES[self.flat()]
        exponent = self._argument() if braced else self._small_exponent()
        return ("pow", base, exponent)

    def _small_exponent(self) -> tuple:
        if self.sees("-", "+"):
            sign = self.take().text
            if self.sees("-", "+"):
                raise Unreadable("two signs in a row")
            exponent = self._small_exponent()
            return ("neg", exponent) if sign == "-" else exponent
        exponent = self.primary()
        levels = [exponent]
        while self.sees("^", "**"):  # towers group from the right
            self.take()
            levels.append(self._argument())
        for below in reversed(levels[:-1]):
            levels[-1] = ("pow", below, levels[-1])
        return levels[-1]

    def _argument(self, *, one_digit: bool = False) -> tuple:
        """What stands in braces, or one token."""
        if self.sees("{"):
            self.take()
            tree = self.items()
            self.expect("}")
            return tree
        token = self.here()
        if one_digit and token and token.kind == "num" and len(token.text) > 1:
            # \frac12 is one half.
            rest = token.text[1:]
            if not rest.isdecimal():
                raise Unreadable("a decimal without braces")
            self.tokens[self.at] = Token("num", rest, False, Fraction(int(rest)))
            return ("num", Fraction(int(token.text[0])))
        if self.sees("-"):
            self.take()
            return ("neg", self.primary())
        return self.primary()

    def primary(self) -> tuple:
        self.depth += 1  # every way down leads through here
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"nested over {MAX_DEPTH} deep")
        tree = self._primary()
        self.depth -= 1
        return tree

    def _primary(self) -> tuple:
        token = self.take()
        if token.kind == "num":
            return self.number(token)
        if token.kind == "word":
            return {"e": ("const", "e"), "i": ("const", "i")}.get(token.text, ("var", token.text))
        if token.kind == "text":
            return self._text(token)
        if token.kind == "cmd":
            return self._command(token.text)
        if token.text == "|":
            self.bars += 1
            tree = ("func", "abs", self.sum())
            self.bars -= 1
            self.expect("|")
            return tree
        if token.text == "{":
            tree = self.items()
            self.expect("}")
            return ("set", *tree[1:]) if tree[0] == "list" else tree
        if token.text in vocabulary.CLOSERS:
            return self._bracket(token.text)
        raise Unreadable(f"unexpected {token.text!r}")

    def _text(self, token: Token) -> tuple:
        word = token.text.strip()
        if word.lower() in vocabulary.FUNCTIONS:
            return self._call(vocabulary.FUNCTIONS[word.lower()])
        if word == "i" or word == "e":
            return ("const", word)
        if not word.isalpha() or len(word) > 3 and not vocabulary.acronym(word):
            raise Unreadable(f"the words {word!r}")
        if 2 <= len(word) <= 3 and word.isupper():  # as without \text{}: letter by letter
            letters = [("var", letter) for letter in word]
            return functools.reduce(lambda a, b: ("mul", a, b), letters)
        return ("var", word)

    def _command(self, name: str) -> tuple:
        if name in vocabulary.INFINITE:
            return ("inf",)
        if name == "pi":
            return ("const", "pi")
        if name == "frac":
            top = self._argument(one_digit=True)
            return ("div", top, self._argument(one_digit=True))
        if name in ("binom", "dbinom", "tbinom"):
            top = self._argument(one_digit=True)
            return ("binom", top, self._argument(one_digit=True))
        if name in ("sqrt", "cbrt"):
            degree = ("num", Fraction(2 if name == "sqrt" else 3))
            if self.sees("["):
                self.take()
                degree = self.items()
                self.expect("]")
            return ("root", degree, self._argument())
        if name in vocabulary.FUNCTIONS:
            return self._call(vocabulary.FUNCTIONS[name])
        if name in ("{", "lbrace"):
            return self._set()
        if name in vocabulary.SPECIAL:
            return vocabulary.SPECIAL[name]
        if name in ("lfloor", "lceil", "lvert", "langle"):
            return self._fenced(name)
        if name == "begin":
            return self._matrix()
        if name in vocabulary.ACCENTS:
            return ("var", f"{name} {self.flat()}")
        if name in vocabulary.LETTERS:
            return ("var", name)
        raise Unreadable(f"the command {name!r}")
