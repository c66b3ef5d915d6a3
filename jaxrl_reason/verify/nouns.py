"""Words behind a number: those that count something, and those that change it or take it back.

Host side. Reads: nothing. Writes: nothing.

No list holds all that can be counted, so the form decides: the last word is a plural (after one, or
a part of one, a singular), and no word is a number, a fraction, a scale, a negation, a hedge, a
judgement or an adverb of doubt. "5 red marbles" is 5; "5 halves", "5 incorrect", "5 possibly six
marbles" are not.
"""

from __future__ import annotations

import re

from jaxrl_reason.verify import vocabulary

MAX_WORDS = 4  # of a noun with its adjectives, and of what stands behind "of"

# Words that make something else of the number before them, or say that it does not hold.
_CHANGE = frozenset(
    "or and not minus plus times squared cubed factorial factorials to than over divided if is are was were but "
    "i so no wait then because since per point half halves quarter quarters halved doubled tripled double triple "
    "percent pct percentage percents x pi e sqrt sin cos tan log ln mod modulo choose base the than except all any "
    "negative negatives negated negation opposite opposites inverse inverses reciprocal reciprocals "
    "where when which that below beneath under short behind debt deficit loss lost "
    "owed missing gross score scores grand dozenth dozenths parts "
    # doubt and judgement
    "maybe perhaps possibly probably approximately about wrong false incorrect untrue invalid mistaken mistake "
    "error impossible unlikely never nope nor neither either unless otherwise alternatively instead versus vs rather "
    "almost nearly hardly barely unsure uncertain unknown dubious doubtful rejected excluded extraneous denied "
    "refuted disproved bogus fake nonsense unsound untenable contradiction contradictory absurd guess "
    # verbs in -s, which look like plurals
    "fails seems equals exceeds contradicts means gives makes yields violates disagrees conflicts differs "
    "looks appears becomes needs requires implies suggests has does loses disproves refutes plus minus less "
    "always besides whereas this its his hers theirs ours as us yes thus perhaps isn aren wasn doesn "
    "isn't aren't wasn't doesn't can't cannot won't".split()
)
_ADVERBS_TOO = frozenset("daily weekly monthly yearly hourly early friendly family elderly".split())
_ORDINAL = re.compile(
    r"(?:\w{0,12}-)?(?:half|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|\w{2,6}teenth"
    r"|\w{2,6}tieth|\w{0,9}hundredth|\w{0,9}thousandth|\w{0,9}illionth|zillionth)s?"
)
_SCALE = re.compile(
    r"(?:tens?|dozens?|hundreds?|thousands?|\w{1,12}illions?|lakhs?|crores?|myriads?|googols?)"
)
_IRREGULAR = frozenset(
    "people children feet teeth geese mice lice oxen sheep fish deer moose series species dice data bacteria "
    "criteria cacti fungi radii loci foci nuclei alumni salmon trout shrimp aircraft spacecraft offspring yen won "
    "yuan baht rand pence cattle bison elk squid media phenomena polyhedra".split()
)
_ADJECTIVE = re.compile(r"\w{1,40}(?:able|ible|ful|less|ous|ive|ed|ing|ish|ary|ically|ly)")
_PREPOSITIONS = frozenset("of in on at for from with".split())
# What may stand last and says nothing of the number.
_TRAILING = frozenset(
    "left total altogether each remaining overall old long tall wide deep high thick away apart ago later more "
    "now today long together".split()
)
_ARTICLES = frozenset("the a an her his their our my its each every".split())


def changes(word: str) -> bool:
    """Whether a word behind a number may change it or take it back.

    Example:
      >>> changes("halves"), changes("seventeenths"), changes("possibly"), changes("marbles")
      (True, True, True, False)
    """
    word = word.lower()
    return (
        word in _CHANGE
        or word in vocabulary.NUMBERS
        or word not in ("zeros", "ones")
        and word.removesuffix("s") in vocabulary.NUMBERS
        or vocabulary.counted(word) is not None
        or word.endswith("ly")
        and word not in _ADVERBS_TOO
        or _ORDINAL.fullmatch(word) is not None
        or _SCALE.fullmatch(word) is not None
    )


def trimmed(words: list[str]) -> list[str] | None:
    """The noun with its adjectives, without what it is made of, where it is or for whom; None: no such words.

    Example:
      >>> trimmed("bags of rice".split()), trimmed("red marbles left in the box".split())
      (['bags'], ['red', 'marbles'])
      >>> trimmed("apples short of ten".split()) is None
      True
    """
    at = next((i for i, word in enumerate(words) if word in _PREPOSITIONS), len(words))
    behind = [w for w in words[at + 1 :] if w not in _ARTICLES and w not in _PREPOSITIONS]
    if len(behind) > MAX_WORDS or at < len(words) and not behind:
        return None
    if any(changes(word) and word not in _TRAILING for word in behind):
        return None
    noun = words[:at]
    while len(noun) > 1 and (
        noun[-1] in _TRAILING or noun[-2:-1] == ["a"] or noun[-1] in ("a", "an")
    ):
        noun = noun[:-1]
    if noun[:1] in (["more"], ["fewer"], ["extra"]) and len(noun) > 1:
        noun = noun[1:]
    return noun if 0 < len(noun) <= MAX_WORDS else None


# Adjectives of numbers, which count such numbers and say nothing alone.
_KINDS = frozenset("positive even odd real integer rational prime whole".split())


def counts(noun: list[str], *, one: bool) -> bool:
    """Whether an adjective or none and a noun can be what a number counts.

    Args:
      noun: from `trimmed`, without units of measurement.
      one: the number is one, or a part of one, so that a singular may follow.
    Example:
      >>> counts(["red", "marbles"], one=False), counts(["incorrect"], one=False)
      (True, False)
      >>> counts(["apple"], one=True), counts(["unsuitable"], one=True)
      (True, False)
    """
    if noun == ["times"]:
        return True
    last = noun[-1].lower()
    if any(changes(word) for word in noun) or last in _KINDS:
        return False
    return _is_plural(last) or one and len(last) > 2 and _ADJECTIVE.fullmatch(last) is None


def _is_plural(word: str) -> bool:
    if word in _IRREGULAR or word.endswith(("men", "children", "people", "fish")):
        return True
    return len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
