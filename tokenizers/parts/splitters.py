"""Where text is cut before a vocabulary is applied: pre-tokens, by published patterns.

====================  ============================================================================
gpt2                  contractions; words, numbers and punctuation with one space before them
cl100k                GPT-4's: words take one character of any other kind before them, numbers
                      come in threes, punctuation takes the line breaks after it
o200k                 GPT-4o's: the same, words begin at upper case and keep contractions and marks
llama3                Llama 3's; the same pieces as cl100k, for any text
whitespace            words of anything but white space, with one space before them
lines                 a cut behind each line feed
none                  no cut
superbpe              SuperBPE's second stage (Liu et al. 2025, 2503.13423): only digits by three,
                      runs of two punctuation marks or more, and spaces before no text stand apart
====================  ============================================================================

Pieces are what the pattern matches, one after another, and what lies between two matches (superbpe
needs that; tiktoken would drop it). An empty match cuts, too. Bytes that are no UTF-8 are a piece
each, and the text between two of them is split as a text of its own.

The patterns here are scanned by compiled code, in time linear in the text, by the character classes
of Unicode 16.0 (``tokenizers/unicode/categories.py``); others by the ``regex`` library, and by the
version of Unicode that it has.
"""

import functools
import itertools

import numpy as np

_WHITE = r"\s+(?!\S)|\s+"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ANY_CASE = r"\p{Lm}\p{Lo}\p{M}"
_THREES = r"\p{N}{1,3}"

PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + _WHITE,
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
        r"|\s*[\r\n]|" + _WHITE
    ),
    "o200k": (
        rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}{_ANY_CASE}]*[\p{{Ll}}{_ANY_CASE}]+{_CONTRACTIONS}?"
        rf"|[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}{_ANY_CASE}]+[\p{{Ll}}{_ANY_CASE}]*{_CONTRACTIONS}?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|" + _WHITE
    ),
    "llama3": (
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|" + _WHITE
    ),
    "whitespace": r" ?\S+|" + _WHITE,
    "lines": r"[^\n]*\n|[^\n]+",
    "none": r"(?s:.+)",
    "superbpe": r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]{2,}[\r\n/]*| +(?!\S)",
}
"""The regular expressions, as published where they are."""

_DIGITS = {
    "none": r"\p{N}+",
    "single": r"\p{N}",
    "left": _THREES,
    "right": r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
}
DIGITS = ("pattern", *_DIGITS)
"""How runs of digits (any number, \\p{N}) are cut: as the pattern has it; not at all; each alone;
in threes from the left; in threes that end where the run ends (Singh and Strouse 2024, 2402.14903).
All but the first let no space into a piece of digits."""


def pattern(name: str, digits: str = "pattern") -> str:
    """The regular expression of a splitter, with one of ``DIGITS``.

    Raises ValueError for a name or rule that there is not, or a rule where digits are not cut."""
    if name not in PATTERNS:
        raise ValueError(f"text is split by {', '.join(PATTERNS)}, not {name!r:.40}")
    if digits not in DIGITS:
        raise ValueError(f"digits are cut by {', '.join(DIGITS)}, not {digits!r:.40}")
    published = PATTERNS[name]
    if digits == "pattern":
        return published
    rule = _DIGITS[digits]
    if name == "whitespace":
        return rf"{rule}| ?[^\s\p{{N}}]+|{_WHITE}"
    if name == "gpt2":
        return published.replace(r" ?\p{N}+", rule)
    if _THREES not in published:
        raise ValueError(f"the splitter {name} leaves digits where they are, so not {digits}")
    return published.replace(_THREES, rule)


@functools.cache
def _scanned() -> dict[str, tuple[str, str]]:
    """Splitter and rule for digits of every regular expression that ``pattern`` gives."""
    known = {}
    for name, digits in itertools.product(PATTERNS, DIGITS):
        if digits == "pattern" or name not in ("lines", "none"):
            known.setdefault(pattern(name, digits), (name, digits))
    return known


def ends(data: bytes, regex: str) -> np.ndarray:
    """``[n]`` uint8: 1 at the last byte of each piece. Raises ValueError if ``regex`` is none."""
    if regex not in _scanned():
        return _matched(data, regex)
    from octavo.tokenizers.parts.scanners import scan

    return scan(np.frombuffer(data, np.uint8), *_scanned()[regex])


@functools.cache
def _compiled(pattern: str):
    import regex

    try:
        return regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r:.80} is no regular expression: {error}") from error


def _matched(data: bytes, regex: str) -> np.ndarray:
    """The same by the ``regex`` library."""
    matches = _compiled(regex).finditer
    text = data.decode("utf-8", errors="surrogateescape")
    points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)
    stray = (points >= 0xDC80) & (points <= 0xDCFF)
    cuts = np.zeros(len(points) + 1, np.uint8)  # before each character
    cuts[:-1] |= stray
    cuts[1:] |= stray
    borders = np.flatnonzero(np.diff(stray, prepend=True, append=True)).tolist()
    for first, last in zip(borders[::2], borders[1::2], strict=True):
        for match in matches(text[first:last]):
            cuts[first + match.start()] = cuts[first + match.end()] = 1
        cuts[last] = 1
    sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    lasts = np.cumsum(np.where(stray, 1, sizes)) - 1
    found = np.zeros(len(data), np.uint8)
    found[lasts] = cuts[1:]
    return found
