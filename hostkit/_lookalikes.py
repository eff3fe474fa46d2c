"""Names that somebody could take for another one: the same to the eye, or one slip of the finger away."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from ._names import normalized

# Letters and digits that pass for ASCII ones in the usual fonts, Cyrillic, Greek and Armenian above all.
_CONFUSABLE = str.maketrans(
    {
        **dict(zip("0135", "olls", strict=True)),
        **dict(zip("асеорхуіјѕԁһԛԝгпкмтв", "aceopxyijsdhqwrnkmtb", strict=True)),
        **dict(zip("αορνικτυχεηβγ", "aopviktuxenby", strict=True)),
        **dict(zip("օոսհցզ", "onuhgq", strict=True)),
        "ı": "i",
        "ł": "l",
        "ø": "o",
        "|": "l",
    }
)
_PAIRS = (("rn", "m"), ("vv", "w"), ("cl", "d"), ("i", "l"), ("-", ""))
# Shorter names are one letter apart by nature.
_SHORTEST = 5


def like(name: str, others: Iterable[str]) -> str | None:
    """Return the first of ``others`` that ``name`` could be taken for, None where there is none. The same name is no look-alike."""
    mine, seen = normalized(name), _skeleton(name)
    for other in sorted(others):
        theirs = normalized(other)
        if theirs != mine and (seen == _skeleton(other) or _one_slip(mine, theirs)):
            return other
    return None


def _skeleton(name: str) -> str:
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    text = normalized(plain).translate(_CONFUSABLE)
    for pair, single in _PAIRS:
        text = text.replace(pair, single)
    return text


def _one_slip(one: str, other: str) -> bool:
    """Whether a letter too many, too few, wrong, or two in the wrong order make one name of the other."""
    if min(len(one), len(other)) < _SHORTEST or abs(len(one) - len(other)) > 1:
        return False
    start = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    a, b = one[start:], other[start:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[:2][::-1] and a[2:] == b[2:])
