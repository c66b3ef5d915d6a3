"""A place in a row of tokens, and what is read of them without looking at operators.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

from fractions import Fraction

from jaxrl_reason.verify import vocabulary
from jaxrl_reason.verify.lexer import Token, Unreadable


class Cursor:
    """Tokens, and the place where reading goes on."""

    def __init__(self, tokens: list[Token]):
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.open = 0  # square brackets that may end backwards

    def here(self, ahead: int = 0) -> Token | None:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def sees(self, *texts: str, kinds: tuple[str, ...] = ("op", "cmd"), ahead: int = 0) -> bool:
        token = self.here(ahead)
        return token is not None and token.kind in kinds and token.text in texts

    def take(self) -> Token:
        token = self.here()
        if token is None:
            raise Unreadable("ends too early")
        self.at += 1
        return token

    def expect(self, *texts: str) -> Token:
        token = self.take()
        if token.text not in texts:
            raise Unreadable(f"{token.text!r} where {texts[0]!r} is needed")
        return token

    def flat(self) -> str:
        """The text of a subscript or mark, not read any further."""
        if not self.sees("{"):
            return self.take().text
        self.take()
        parts, depth = [], 1
        while depth:
            token = self.take()
            depth += (token.text == "{") - (token.text == "}")
            if depth and token.kind != "op" or token.text in "+-,'*":
                parts.append(token.text.strip())
        return "".join(parts)

    def relation_follows(self) -> bool:
        """Whether what stands behind the next token is a relation, as in "x < 1 or x > 3"."""
        depth = 0
        for token in self.tokens[self.at + 1 :]:
            depth += (token.text in "([{") - (token.text in ")]}")
            if depth < 0 or depth == 0 and token.text in (",", ";", "cup", "U"):
                return False
            if depth == 0 and token.kind != "text" and token.text in vocabulary.RELATIONS:
                return True
        return False

    def closes_backwards(self) -> bool:
        """Whether the next "[" ends an interval, as in ]2, 5[, since nothing in it follows."""
        token = self.here(1)
        return self.open and (
            token is None
            or token.text in (")", "]", "}", ",", ";", "cup", "cap", "U", "setminus")
            or token.kind == "text"
        )

    def at_zero(self) -> bool:
        """Whether "(0)" follows."""
        token = self.here(1)
        zero = token is not None and token.value == 0 and token.kind == "num"
        return zero and self.sees("(") and self.sees(")", ahead=2)

    def number(self, token: Token) -> tuple:
        whole = token.text.isdecimal()
        if "." in token.text and self.sees("overline", "bar", "dot"):
            self.take()
            return ("num", token.value + vocabulary.repeating(token.text, self.flat()))
        if "." in token.text and self.sees("ldots", "dots", "cdots"):
            self.take()
            return ("num", vocabulary.continued(token.text))
        if whole and self.sees("_"):
            self.take()
            base = self.flat()
            base = vocabulary.NUMBERS.get(base.lower(), base)
            if not base.isdecimal() or len(base) > 2 or not 2 <= int(base) <= 36:
                raise Unreadable(f"a number to the base {base[:20]!r}")
            if base == "10":
                return ("num", token.value)
            return ("based", token.text.lstrip("0") or "0", base)
        part = self._fraction_part() if whole else None
        return ("num", token.value + part) if part is not None else ("num", token.value)

    def _fraction_part(self) -> Fraction | None:
        r"""The rest of a mixed number: \frac{1}{2} behind a 3, or 1/2 behind "3 "."""
        if self.sees("frac"):
            top, bottom, places = self.here(1), self.here(2), 3
            if self.sees("{", ahead=1) and self.sees("}", ahead=3) and self.sees("{", ahead=4):
                if not self.sees("}", ahead=6):
                    return None
                top, bottom, places = self.here(2), self.here(5), 7
            elif top is not None and top.kind == "num" and len(top.text) == 2:
                a, b = (Token("num", c, False, Fraction(int(c))) for c in top.text.zfill(2)[:2]
                        ) if top.text.isdecimal() else (None, None)  # fmt: skip
                top, bottom, places = a, b, 2
        elif (
            (first := self.here())
            and first.kind == "num"
            and first.spaced
            and self.sees("/", ahead=1)
        ):
            top, bottom, places = first, self.here(2), 3
        else:
            return None
        if not all(t is not None and t.kind == "num" and t.text.isdecimal() for t in (top, bottom)):
            return None
        if not 0 < top.value < bottom.value:
            return None
        self.at += places
        return top.value / bottom.value
