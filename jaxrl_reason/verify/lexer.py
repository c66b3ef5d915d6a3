r"""Answer text to tokens: LaTeX, plain text and Unicode spellings are brought to one alphabet.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from jaxrl_reason.verify import fonts

MAX_TOKENS = 600
MAX_DIGITS = 1000  # in one number

_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ",
    "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "∛": r"\cbrt ", "°": r"^\circ ",
    "º": r"^\circ ", "˚": r"^\circ ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "≈": r"\approx ", "⩽": r"\le ", "⩾": r"\ge ",
    "∨": r"\lor ", "ℝ": r"\mathbb{R}", "′": "'", "’": "'", "⟨": r"\langle ", "⟩": r"\rangle ",
    "∣": "|", "∗": "*", "∕": "/", "⁄": "/", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ",
    "⌉": r"\rceil ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ",
    "μ": r"\mu ", "φ": r"\phi ", "₀": "_0", "₁": "_1", "₂": "_2", "₃": "_3", "₄": "_4", "₅": "_5",
    "₆": "_6", "₇": "_7", "₈": "_8", "₉": "_9", "…": r"\ldots ", "℃": r"^\circ C",
    "℉": r"^\circ F", "∎": "", "✓": "", "✅": "",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")

# Layout that carries no meaning.
_LAYOUT = re.compile(
    r"(?<!\\)\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|mathstrut|hfill"
    r"|blacksquare|checkmark|qed|tiny|small|normalsize|large|Large|LARGE|huge|Huge|boldmath|centering|(?:text)?color\s*\{[^{}]*\}"
    r"|phantom\{[^{}]*\}|rule\{[^{}]*\}\{[^{}]*\})(?![a-zA-Z])"
)
_SPACES = re.compile(r"(?<!\\)\\(?:[;:>! ]|(?:quad|qquad|enspace|thinspace)(?![a-zA-Z]))|~|&nbsp;")
_ROWS = re.compile(r"\\(?:begin|end)\s*\{(?:align|aligned|split|gather|gathered|equation)\*?\}")
_NUMBER_TEXT = re.compile(r"\{\s*\\(?:text|mathrm)\s*\{\s*([0-9.]+)\s*\}\s*\}")
_GROUPED = re.compile(r"(?<![\d.,])\d++(?:(?:\{,\}|\\,|,\\!)\d++)+")
_COMMA_GROUPED = re.compile(r"(?<![\d.,_])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_SPACE_GROUPED = re.compile(r"(?<![\d.,_])\d++(?: \d++)+")
_SLASH = re.compile(r"\s*+/")
_NO_DIGITS = re.compile(r"\D+")
_ALL_TEXT = re.compile(r"\\(?:text|mathrm|mbox|textrm|textnormal|textbf)\s*\{([^{}]*)\}")
_NO_TEXT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[\s.]*\}")
_TEXT_COMMA = re.compile(r"\\(?:text|mathrm|mbox)\s*\{\s*,\s*+(?:(?:and|or)\s*+)?\}")
_CLOCK = re.compile(
    r"(?<![\d:])(\d{1,2})(?:(:\d\d)\s*|\s+|(?=\s*\\))(\\(?:text|mathrm)\{\s*)?"
    r"([ap]\.\s?m\b\.?|[AP]\.\s?M\b\.?|[ap]m\b|[AP]M\b)(?!\^)(?(3)\s*\})"
)
_TIMES = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))")  # 1.2 x 10^5
_MODULE = re.compile(r"(?<![\w.])(?:np|numpy|math)\.(?=[a-z])")  # np.sqrt(2) is sqrt(2)
_LEADING = re.compile(r"(?:=(?!=)|\\approx(?![a-zA-Z]))\s*")  # "= 17" behind what was asked for
_FACTORIAL = re.compile(r"(?<=[0-9])!=(?=\s*[0-9])")  # 4!=24, where 4 is unequal says nothing
_DOTS = re.compile(r"(?<=[0-9])\.\.\.(?!\.)")
_MATHS = re.compile(r"(?<!\\)\\[()\[\]]|\$\$")

_TOKEN = re.compile(
    r"(?P<num>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+(?![\w.]))?)"
    r"|\\(?:text|mathrm|mbox|textrm|textnormal|textbf|textit|operatorname\*?|rm)\s*"
    r"\{(?P<text>[^{}]*)\}"
    r"|\\(?P<cmd>[a-zA-Z]+|[{}|%$#_&\\,!])"
    r"|(?P<word>[a-zA-Z]+)"
    r"|(?P<op><=|>=|!=|==|\*\*|[-+*/^_=<>(){}\[\],;:|!%'&$])"
    r"|(?P<space>\s+)"
)


_DEGREE = re.compile(r"(?<!\^)(?<!\{)\\degree(?![a-zA-Z])")
_BRACED_COMMA = re.compile(r"\{\s*+,\s*+(?:\\!\s*+)?\}(?=\d)")
_WIDE_COMMA = re.compile(r",\\!\s++(?=\d)")
# Signs of other scripts around an answer in English, and what is there and cannot be seen.
_SIGNS = str.maketrans(
    {"\u3002": ".", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u3001": ","}
    | {
        wide: chr(ord(wide) - 0xFEE0)
        for wide in "\uff0c\uff0e\uff1a\uff1b\uff01\uff1f\uff08\uff09\uff05\uff1d\uff0d\uff0b\uff0f"
    }
    | dict.fromkeys(
        "\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\ufe0f", ""
    )
)


class Token(NamedTuple):
    """One token: kind is num, cmd, word, text or op; `spaced`: white space stands before it."""

    kind: str
    text: str
    spaced: bool
    value: Fraction | None = None


class Unreadable(ValueError):
    """Text that is no answer this package can read, or one beyond its size limits."""


def plain_signs(text: str) -> str:
    r"""Text with ASCII punctuation for full-width one and without characters that nobody sees.

    Example:
      >>> plain_signs("Answer\uff1a4\u200b2\u3002")
      'Answer:42.'
    """
    return text if text.isascii() else text.translate(_SIGNS)


def clean(text: str) -> str:
    r"""One spelling for what looks the same: symbols, digits, spaces, separators, mark-up.

    Args:
      text: any text of moderate length.
    Returns:
      Text in which numbers have no thousands separators and fonts and layout are gone.
    Example:
      >>> clean("**１２,３４５**"), clean(r"$\dfrac{1}{2}$"), clean("x²")
      ('12345', '\\frac{1}{2}', 'x^{2}')
    """
    text = text.strip()
    if not text.isascii():
        text = _to_ascii_maths(plain_signs(text)).strip()
    if "\\" in text or "~" in text:
        text = fonts.without(_LAYOUT.sub("", text))
        text = _NO_TEXT.sub(" ", text)
        text = _TEXT_COMMA.sub(",", text)
        text = _NUMBER_TEXT.sub(r"{\1}", text)
        if "\\begin" in text:
            text = _without_rows(text)
        text = _WIDE_COMMA.sub(r",\\!", _BRACED_COMMA.sub("{,}", text))
        text = _DEGREE.sub(r"^\\circ ", text)
        text = _GROUPED.sub(_without_groups, text)
        text = _SPACES.sub(" ", text)
        text = re.sub(r"(?<!\\)\\,", " ", text).replace(r"\$", "$")
        text = re.sub(r"\\(?:[dtcs]|nice|flat)frac(?![a-z])", r"\\frac", text)
        text = re.sub(r"(\\\\)\[[0-9.]+(?:pt|em|ex|mm)\]", r"\1", text)
        text = _MATHS.sub("", text)
    else:
        text = text.replace("$$", "")
        text = _BRACED_COMMA.sub("{,}", text)
        if "{,}" in text:
            text = _GROUPED.sub(_without_groups, text)
    text = text.replace("^{}", "").replace(r"\text{:}", ":").replace("{:}", ":")
    if "m" in text or "M" in text:
        text = _CLOCK.sub(lambda m: f"{m[1]}{m[2] or ':00'} {m[4][0].lower()}m", text)
    if ")_" in text:
        text = re.sub(r"\((\d{1,60})\)_", r"\1_", text)  # (1101)_2
    if "!=" in text:
        text = _FACTORIAL.sub("! =", text)
    if "10" in text:
        text = _TIMES.sub(r"\\times ", text)
    if "." in text:
        text = _DOTS.sub(r"\\ldots ", text.replace("{.}", "."))
        text = _MODULE.sub("", text)
    text = _unwrapped(text)
    if text.startswith("\\") and (bare := _unworded(text)) != text:
        text = _unwrapped(bare)
    return _without_separators(text)


def _without_rows(text: str) -> str:
    """Steps that stand one below the other as one line, other rows as a list."""
    rows, count = _ROWS.subn("", text)
    if not count or "\\begin" in rows:
        return text
    rows = re.sub(r"\\\\\s*+(?:&\s*+)?=", "=", rows.replace("&=", "=").replace("& =", "="))
    return rows.strip().removesuffix("\\\\").replace("\\\\", ",").replace("&", " ")


def _unworded(text: str) -> str:
    """The text in \\text{...} where that is all there is, and digits are in it."""
    match = _ALL_TEXT.fullmatch(text)
    if match and any(c.isdigit() for c in match[1]):
        return match[1].replace(r"\$", "$")
    return text


def _to_ascii_maths(text: str) -> str:
    text = _SUPERSCRIPT_RUN.sub(lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    parts = []
    for char in text:
        if char in _SYMBOLS:
            parts.append(_SYMBOLS[char])
        elif char.isascii():
            parts.append(char)
        elif char.isdecimal():
            parts.append(str(unicodedata.decimal(char)))
        elif unicodedata.decomposition(char).startswith("<fraction>"):
            top, _, bottom = unicodedata.normalize("NFKC", char).partition("\u2044")
            parts.append(rf"\frac{{{top}}}{{{bottom}}}")
        else:
            plain = unicodedata.normalize("NFKC", char)
            parts.append("".join(_SYMBOLS.get(c, c) for c in plain))
    return "".join(parts)


def _unwrapped(text: str) -> str:
    # Markdown bold, maths mode and a full stop may be nested in any order; a lone dollar is money.
    for _ in range(6):
        before = text
        text = text.strip().rstrip("\\").strip()
        if text[:1] in ("=", "\\") and (match := _LEADING.match(text)):
            text = text[match.end() :]
        text = text.removesuffix(".") if not text.endswith("..") else text
        text = text.rstrip(",;:")
        for mark in ("**", "`", "__", '"', "*", "_"):
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)]
        if text.count("$") >= 2 and text.count("$") % 2 == 0:
            text = re.sub(r"\$([^$]*)\$", r" \1 ", text)
        if text == before:
            break
    return text.strip()


def _without_separators(text: str) -> str:
    if "," not in text and " " not in text:
        return text
    if not any(c in text for c in "([{"):
        text = _COMMA_GROUPED.sub(lambda m: m[0].replace(",", ""), text)
        return _SPACE_GROUPED.sub(_without_groups, text)
    # A comma inside brackets parts the entries of a tuple, interval or set.
    pieces, depth, start = [], 0, 0
    for match in re.finditer(r"[(\[]|\\\{|[)\]]|\\\}", text):
        if depth == 0:
            pieces.append(
                _COMMA_GROUPED.sub(lambda m: m[0].replace(",", ""), text[start : match.start()])
            )
        else:
            pieces.append(text[start : match.start()])
        depth = max(0, depth + (1 if match[0][-1] in "([{" else -1))
        pieces.append(match[0])
        start = match.end()
    tail = text[start:]
    pieces.append(_COMMA_GROUPED.sub(lambda m: m[0].replace(",", ""), tail) if depth == 0 else tail)
    return "".join(pieces)


def _without_groups(match: re.Match) -> str:
    """Digits and separators: up to three digits and groups of three behind them are one number."""
    groups = _NO_DIGITS.split(match[0])
    between = _NO_DIGITS.findall(match[0])
    if between[-1] == " " and _SLASH.match(match.string, match.end()):
        between[-1] = "/"  # 3 125/1000 is no 3125/1000
    found, joins = [groups[0]], 1 <= len(groups[0]) <= 3
    for separator, group in zip(between, groups[1:], strict=True):
        joins = joins and len(group) == 3 and separator != "/"
        found += [group] if joins else [" " if separator == "/" else separator, group]
        joins = joins or len(group) <= 3
    return "".join(found)


def tokenize(text: str) -> list[Token]:
    r"""Tokens of cleaned text.

    Args:
      text: what `clean` returned.
    Returns:
      At most MAX_TOKENS tokens.
    Raises:
      Unreadable: a character that is no maths, too many tokens, or a number of too many digits.
    Example:
      >>> [t.text for t in tokenize(r"2\pi r")]
      ['2', 'pi', 'r']
    """
    tokens: list[Token] = []
    position, spaced = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable(f"character {text[position]!r}")
        position = match.end()
        kind = match.lastgroup
        if kind == "space":
            spaced = True
            continue
        if len(tokens) >= MAX_TOKENS:
            raise Unreadable(f"over {MAX_TOKENS} tokens")
        value = number(match[0]) if kind == "num" else None
        tokens.append(Token(kind, match[kind], spaced, value))
        spaced = False
    return tokens


def number(text: str) -> Fraction:
    """Exact value of digits with an optional point and an optional power of ten.

    Raises:
      Unreadable: over MAX_DIGITS digits, or a power of ten beyond it.
    """
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > MAX_DIGITS:
        raise Unreadable(f"number of over {MAX_DIGITS} digits")
    value = Fraction(mantissa + "0" if mantissa.endswith(".") else mantissa)
    return value * Fraction(10) ** int(exponent) if exponent else value
