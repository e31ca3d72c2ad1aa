"""The patterns of ``splitters.py`` as loops over bytes, compiled.

First every byte gets the class of its character, so that runs of a class are found byte by byte.
Bytes that are no UTF-8, and the end, have class 0: every run stops there, and a pattern that looks
ahead sees no text.
"""

import functools

import numpy as np

from octavo.compiled import compiled, inlined
from octavo.tokenizers.parts.splitters import DIGITS, PATTERNS
from octavo.tokenizers.unicode.categories import (
    LETTER,
    LOWER,
    MARK,
    NUMBER,
    OTHER,
    SPACE,
    UPPER,
    load,
)
from octavo.tokenizers.unicode.utf8 import character

_FEED, _BLANK, _APOSTROPHE, _SLASH = b"\n '/"
_D, _E, _L, _M, _R, _S, _T, _V = b"delmrstv"

_BREAK = 128  # \r and \n, which leave SPACE
_WHITE = SPACE | _BREAK
_LETTERS = UPPER | LOWER | LETTER
_MARKS = OTHER | MARK  # [^\s\p{L}\p{N}]
_TEXT = _LETTERS | NUMBER | _MARKS
_HEAD = UPPER | LETTER | MARK  # of o200k's words
_TAIL = LOWER | LETTER | MARK

_GPT2, _CL100K, _O200K, _LLAMA3, _WORDS, _LINES, _NONE, _SUPERBPE = range(len(PATTERNS))
_PATTERN, _RUN, _SINGLE, _LEFT, _RIGHT = range(len(DIGITS))


def scan(data: np.ndarray, name: str, digits: str) -> np.ndarray:
    """``[n]`` uint8 of bytes to ``[n]`` uint8: 1 at the last byte of each piece, by a splitter of
    ``PATTERNS`` and a rule of ``DIGITS``."""
    rule = DIGITS.index(digits)
    if rule == _PATTERN and name not in ("gpt2", "whitespace"):
        rule = _LEFT
    return _scan(data, _table(), list(PATTERNS).index(name), rule)


@functools.cache
def _table() -> np.ndarray:
    table = load()
    table[[10, 13]] = _BREAK
    return table


@compiled
def _classes(data, table):
    """``[n + 1]``: the class of each byte's character, 0 of no character and of the end."""
    classes = np.zeros(len(data) + 1, np.uint8)
    at = 0
    while at < len(data):
        if data[at] < 0x80:
            classes[at] = table[data[at]]
            at += 1
            continue
        point, size = character(data, at)
        c = table[point]
        for i in range(at, at + size):
            classes[i] = c
        at += max(size, 1)
    return classes


@inlined
def _after(data, at):
    """Where the valid character at ``at`` ends."""
    b = data[at]
    return at + 1 + (b >= 0xC0) + (b >= 0xE0) + (b >= 0xF0)


@inlined
def _run(classes, at, mask):
    """Where a run of some classes ends."""
    while classes[at] & mask:
        at += 1
    return at


@inlined
def _white(data, classes, at, breaks):
    r"""``\s+(?!\S)|\s+``, after ``\s*[\r\n]`` if ``breaks``: white space to its last line break, or
    to the end of the text, or without its last character, which goes with what follows."""
    end, last, broken = at, at, at
    while classes[end] & _WHITE:
        last = end
        end = _after(data, end)
        if classes[last] == _BREAK:
            broken = end
    if breaks and broken > at:
        return broken
    return last if classes[end] and last > at else end


@inlined
def _contraction(data, at, fold):
    """Where 's, 't, 're, 've, 'm, 'll or 'd ends, in any case if ``fold``; ``at`` if none begins
    there."""
    if at + 1 >= len(data) or data[at] != _APOSTROPHE:
        return at
    case = 0x20 if fold else 0
    one = data[at + 1] | case
    if one == _S or one == _D or one == _M or one == _T:
        return at + 2
    if at + 2 < len(data):
        two = data[at + 2] | case
        if one == _L and two == _L:
            return at + 3
        if (one == _V or one == _R) and two == _E:
            return at + 3
        if fold and data[at + 1] == 0xC5 and data[at + 2] == 0xBF:
            return at + 3  # the long s, U+017F, is an s in another case
    return at


@inlined
def _digits(data, classes, at, rule, ends):
    """Where a run of digits ends; marks the ends of pieces inside."""
    end = _run(classes, at, NUMBER)
    if rule == _PATTERN or rule == _RUN:
        return end
    size = 1 if rule == _SINGLE else 3
    left = size
    if rule == _RIGHT:
        count = 0
        for i in range(at, end):
            count += data[i] & 0xC0 != 0x80
        left = (count - 1) % 3 + 1
    while at < end:
        at = _after(data, at)
        left -= 1
        if left == 0:
            ends[at - 1] = 1
            left = size
    return end


@inlined
def _punctuation(data, classes, at, slashes):
    """Where punctuation ends, with line breaks after it, and slashes if so."""
    at = _run(classes, at, _MARKS)
    while classes[at] == _BREAK or (slashes and classes[at] and data[at] == _SLASH):
        at += 1
    return at


@inlined
def _gpt2(data, classes, at, rule, ends):
    end = _contraction(data, at, False)
    if end > at:
        return end
    begin = at + (data[at] == _BLANK)
    c = classes[begin]
    if c & _LETTERS:
        return _run(classes, begin, _LETTERS)
    if c & _MARKS:
        return _run(classes, begin, _MARKS)
    if c & NUMBER and (begin == at or rule == _PATTERN):
        return _digits(data, classes, begin, rule, ends)
    return _white(data, classes, at, False)


@inlined
def _words(data, classes, at, rule, ends):
    mask = _TEXT if rule == _PATTERN else _TEXT & ~NUMBER
    begin = at + (data[at] == _BLANK)
    if classes[begin] & mask:
        return _run(classes, begin, mask)
    if classes[at] & NUMBER:
        return _digits(data, classes, at, rule, ends)
    return _white(data, classes, at, False)


@inlined
def _cl100k(data, classes, at, rule, ends):
    c = classes[at]
    if c & _LETTERS:
        return _run(classes, at, _LETTERS)
    end = _contraction(data, at, True)
    if end > at:
        return end
    return _other(data, classes, at, rule, ends, _LETTERS, False)


@inlined
def _other(data, classes, at, rule, ends, letters, slashes):
    """What cl100k and o200k have in common: pieces that begin with no letter. A word behind one
    character is of ``letters``."""
    c = classes[at]
    if c & NUMBER:
        return _digits(data, classes, at, rule, ends)
    if c == _BREAK:
        return _white(data, classes, at, True)
    begin = _after(data, at)
    if classes[begin] & letters:
        return _run(classes, begin, letters)
    if c & _MARKS:
        return _punctuation(data, classes, at, slashes)
    if data[at] == _BLANK and classes[begin] & _MARKS:
        return _punctuation(data, classes, begin, slashes)
    return _white(data, classes, at, True)


@inlined
def _cased(data, classes, at):
    """Where a word of o200k ends that begins at ``at`` and has a tail; ``at`` if none does: upper
    case, then lower, where letters of neither case and marks count as both. A head that no lower
    case follows gives back what comes after the last letter that may be a tail."""
    end, both = at, at
    while classes[end] & _HEAD:
        last = end
        end = _after(data, end)
        if classes[last] & _TAIL:
            both = end
    if classes[end] & _TAIL:
        return _run(classes, end, _TAIL)
    return both


@inlined
def _o200k(data, classes, at, rule, ends):
    c = classes[at]
    begin = at if c & (_LETTERS | NUMBER | _BREAK) else _after(data, at)
    end = begin
    if classes[begin] & (_LETTERS | MARK):
        end = _cased(data, classes, begin)
    if end == begin and c & MARK:
        begin = at  # a mark before upper case is a word of its own
        end = _cased(data, classes, at)
    if end == begin:
        end = _run(classes, begin, _HEAD)
    if end > begin:
        return _contraction(data, end, True)
    return _other(data, classes, at, rule, ends, 0, True)


@inlined
def _isolated(data, classes, at, rule, ends):
    """Where a match of superbpe ends; ``at`` if none begins there."""
    if classes[at] & NUMBER:
        return _digits(data, classes, at, rule, ends)
    begin = at + (data[at] == _BLANK)
    if classes[begin] & _MARKS and classes[_after(data, begin)] & _MARKS:
        return _punctuation(data, classes, begin, True)
    end = at
    while classes[end] & SPACE and data[end] == _BLANK:
        end += 1
    return end - 1 if end > at and classes[end] & _TEXT else end


@inlined
def _superbpe(data, classes, at, rule, ends):
    """A match, or the text before the next one."""
    end = _isolated(data, classes, at, rule, ends)
    if end > at:
        return end
    while classes[at]:
        at = _run(classes, _after(data, at), _LETTERS)
        if classes[at] and _isolated(data, classes, at, rule, ends) > at:
            break
    return at


@inlined
def _line(data, classes, at):
    while classes[at]:
        at += 1
        if data[at - 1] == _FEED:
            break
    return at


@compiled
def _scan(data, table, splitter, rule):
    classes = _classes(data, table)
    ends = np.zeros(len(data), np.uint8)
    at = 0
    while at < len(data):
        if classes[at] == 0:
            at += 1
        elif splitter == _GPT2:
            at = _gpt2(data, classes, at, rule, ends)
        elif splitter == _CL100K or splitter == _LLAMA3:
            at = _cl100k(data, classes, at, rule, ends)
        elif splitter == _O200K:
            at = _o200k(data, classes, at, rule, ends)
        elif splitter == _WORDS:
            at = _words(data, classes, at, rule, ends)
        elif splitter == _LINES:
            at = _line(data, classes, at)
        elif splitter == _NONE:
            at = _run(classes, at, 255)
        else:
            at = _superbpe(data, classes, at, rule, ends)
        ends[at - 1] = 1
    return ends
