r"""Whether the words around an answer stand by it: negations, suppositions, hedges, corrections.

Host side. Reads: nothing. Writes: nothing.

A policy that is paid for "not 5" learns to say it. What is looked at are the words that govern the
place of the answer, not every negation of the sentence: "it is not hard to see that the answer is 5"
and "6 is wrong, so the answer is 5" say 5.
"""

from __future__ import annotations

import re

REACH = 240  # characters before and behind an answer that are looked at
_WINDOW = 8  # words behind it that may take it back

_COMMAND = re.compile(r"\\(?:[a-zA-Z]++|.)", re.S)
_MARKS = str.maketrans(dict.fromkeys('$*{}_`"()[]~&', " ") | {"\u2019": "'"})
_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+|\n\n|[.!?;:,]")
_ENDS = frozenset(".!?;")
_CLOSERS = " \t$*_`\"')}]\\"

# Words between what governs an answer and the answer itself: "I doubt [that the answer is] 5".
_FILLER = frozenset(
    "that the a an it this its my our final correct right true answer answers result value number solution "
    "total is are be being equal equals to was were would should will x y n which here simply we get "
    "gets have has obtain find gives give can do does :".split()
)
_NOT = frozenset(
    "not never neither nor hardly scarcely barely cannot nobody none dont isnt cant wont doesnt "
    "arent wasnt".split()
)
_SUPPOSED = frozenset(
    "suppose supposing assume assuming pretend imagine unless whether if hypothetically maybe perhaps "
    "possibly supposedly allegedly either or versus thought might may could".split()
)
_DENIED = frozenset(
    "wrong incorrect false untrue impossible unlikely mistaken invalid doubt doubts doubtful deny "
    "denies refuse refuses disagree reject rejects exclude excludes dismiss except excluding unlike erroneous".split()
)
_UNDENIED = frozenset("no not never without beyond little nothing isnt".split())
_HELD = frozenset(
    "think believe claim say agree suppose expect accept sure certain convinced true correct right "
    "possible likely case mean conclude guess believes thinks says claims agrees thought said claimed".split()
)
_SOMEBODY = frozenset(
    "might may could some they he she people many someone somebody friend student others let's let lets".split()
)
_TURNED = frozenset("opposite negative negation reciprocal inverse contrary reverse".split())
_CHANGED = frozenset(
    "square cube root half double third quarter twice sum product difference multiple power percent "
    "fraction part one some any out none rest instead short".split()
)
_MULTIPLES = frozenset("twice thrice half double triple times".split())
_ALMOST = frozenset(
    "minus than least most under over below above beyond almost nearly between among within quite close near "
    "negative".split()
)
_ALL_BUT = frozenset("anything everything anyone all nothing anywhere".split())

_FALSE = frozenset(
    "wrong incorrect false untrue impossible invalid mistaken absurd nonsense too unlikely "
    "contradiction contradictory unacceptable inadmissible excluded extraneous rejected doubtful "
    "questionable mistake error erroneous".split()
)
_NOT_SO = frozenset(
    "answer correct right true possible valid solution it acceptable allowed what our work works hold "
    "fit case good final satisfy so".split()
)
_COPULAS = frozenset(
    "is was are were be seems looks appears would can could must cannot does do has did "
    "isnt cant doesnt wasnt that's it's".split()
)
_BESIDE = frozenset("the a an also clearly obviously just simply really definitely certainly of "
                    "course still actually very rather be".split())  # fmt: skip
_SUBJECTS = frozenset(
    ", which this that it but and however yet though although unfortunately the answer".split()
)
_POINTING = [["this"], ["that"], ["it"], ["the"], ["that's"], ["it's"]]
_SAME_AGAIN = frozenset(
    "equivalently approximately about roughly around nearly simply in written rather".split()
)
_COMPUTES = frozenset(
    "minus plus times divided over squared cubed doubled tripled halved percent".split()
)
_FAILS = frozenset("fails failed contradicts violates".split())
_ANOTHER = frozenset("maybe perhaps possibly else even something anything any else not".split())
_ASIDE = frozenset("wait hmm oh oops actually sorry well so but however ah hold on ,".split())


def taken_back(text: str, start: int, end: int, *, weighed: bool = False) -> bool:
    r"""Whether the words before `start` or behind `end` deny, suppose or hedge what stands between.

    Args:
      text: a completion.
      start, end: the place of its answer, "answer" or a box included.
      weighed: the place is no mark but a mere number, so that "at least" and "twice" count too.
    Example:
      >>> taken_back("I doubt that it is 5.", 19, 20), taken_back("No doubt that it is 5.", 20, 21)
      (True, False)
    """
    line = text.startswith("####", start)  # what stands above it is another sentence
    before = [] if line else _tokens(text[max(0, start - REACH) : start])
    if before and _governed(before, weighed, phrase=text[start : start + 6].lower() == "answer"):
        return True
    behind = text[end : end + REACH].lstrip(_CLOSERS)
    if not behind.strip():
        return False
    return behind.startswith("?") or _retracted(_tokens(behind), weighed)


def _tokens(text: str) -> list[str]:
    plain = _COMMAND.sub(" ", text).translate(_MARKS).lower().replace(" - ", " , ")
    return _TOKEN.findall(plain)


def _is_not(word: str) -> bool:
    return word in _NOT or word.endswith("n't")


def _governed(words: list[str], weighed: bool, *, phrase: bool) -> bool:
    at = len(words)
    while at and words[at - 1] in _FILLER:
        at -= 1
    if not at:
        return False
    # "the answer" is the value itself, whatever number is named: half of it is not it.
    whole = phrase or "answer" in words[at:]
    last, earlier = words[at - 1], words[max(0, at - 4) : at - 1]
    for i, word in reversed(list(enumerate(earlier))):
        if word in _ENDS or word == ",":
            earlier = earlier[i + 1 :]
            break
    previous = earlier[-1] if earlier else ""
    denied = any(_is_not(word) or word in ("few", "refuse") for word in earlier)
    if last == "or" and at > 1 and words[at - 2] == "," and not weighed:
        return "either" in words[:at]  # "2^4, or 16" says the same twice
    if _is_not(last) or last in _SUPPOSED:
        return True
    if last in _DENIED:
        return not (previous in _UNDENIED or previous.endswith("n't"))
    if last in _HELD:
        wrong = any(word in _DENIED or word == "mistake" for word in earlier)
        return denied or wrong or any(word in _SOMEBODY for word in earlier)
    if last in ("but", "except", "besides"):
        return previous in _ALL_BUT
    if last == "of":
        return previous in _TURNED or (whole or weighed) and previous in _CHANGED
    if last in ("than", "from"):
        return previous in ("other", "rather", "far", "different", "differs") or weighed
    return (whole or weighed) and last in _MULTIPLES or weighed and last in _ALMOST


def _retracted(words: list[str], weighed: bool) -> bool:
    aside = words[:1] == [","]
    if _hedged(words[1:] if aside else words, aside=aside):
        return True
    if weighed and (words[1:2] == ["than"] or words[:2] == ["short", "of"]):
        return True
    if weighed and words and words[0] in _COMPUTES:
        return True
    end = next((i for i, word in enumerate(words) if word in _ENDS or "\n" in word), len(words))
    if _denied(words[:end]):
        return True
    rest = words[end + 1 :]
    while rest and rest[0] in _ASIDE:
        rest = rest[1:]
    if rest[:1] in (["no"], ["nope"]):
        return len(rest) == 1 or not rest[1].isalpha() or rest[1] in ("it", "that", "this")
    if rest and rest[0] in _FALSE and not (rest[1:] and rest[1].isalpha()):
        return True
    return _hedged(rest, aside=False) or rest[:1] in _POINTING and _denied(rest)


def _hedged(words: list[str], *, aside: bool) -> bool:
    """Whether another answer follows; behind a comma, "or" and words may say the same again."""
    if words[:1] == ["or"] and len(words) > 1:
        again = words[1] in _SAME_AGAIN or aside and words[1].isalpha() and len(words[1]) > 1
        return not again or words[1] in _ANOTHER
    return words[:1] in (["or"], ["maybe"], ["perhaps"], ["possibly"])


def _denied(words: list[str]) -> bool:
    """Whether a predicate behind the answer denies it: "is wrong", ", which cannot be right"."""
    if words and (words[0] in _FALSE - {"too"} or words[0] in _FAILS):
        return True
    comma = False
    for i, word in enumerate(words[:_WINDOW]):
        if word in ("no", "nope") and (comma or i == 0):
            return len(words) == i + 1 or not words[i + 1].isalpha()
        if word in _COPULAS or word.endswith("n't"):
            return _predicate_denies(words[i:])
        if word in ("might", "may") and i and words[i - 1] in ("it", "this", "that"):
            return True
        comma = comma or word == ","
        plain = word.isalpha() and len(word) > 1
        if word not in _SUBJECTS and (comma or not plain or i >= 3):
            return False
    return False


def _predicate_denies(words: list[str]) -> bool:
    negated = False
    for i, word in enumerate(words):
        if _is_not(word):
            negated = True
        elif not (word in _BESIDE or i == 0):
            return word in (_NOT_SO if negated else _FALSE) or negated and not word.isalnum()
    return negated
