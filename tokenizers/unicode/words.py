"""Words of any script, by Unicode Standard Annex 29 (version 15.0), compiled.

Works on bytes: one that is not part of valid UTF-8 counts as a character of class Other.
"""

import functools

import numpy as np

from octavo.compiled import compiled, inlined
from octavo.tokenizers.unicode.table import CLASSES, KINDS, load
from octavo.tokenizers.unicode.utf8 import character

(
    _OTHER, _CR, _LF, _NEWLINE, _EXTEND, _FORMAT, _ZWJ, _FLAG, _KATAKANA, _HEBREW, _LETTER, _SINGLE,
    _DOUBLE, _MID_NUM_LET, _MID_LETTER, _MID_NUM, _NUMERIC, _EXTEND_NUM_LET, _SPACE, _PICTOGRAPH,
    _LETTER_PICTOGRAPH,
) = range(len(CLASSES))  # fmt: skip
_NO_KIND, _PUNCTUATION, _LOWER, _UPPER, _WHITE = range(len(KINDS))


def _joins() -> np.ndarray:
    """Pairs that no break separates, whatever stands around them: rules WB5, 7a, 8-10, 13-13b."""
    joined = np.zeros((32, 32), np.bool_)
    letters = [_HEBREW, _LETTER, _LETTER_PICTOGRAPH]
    for a in [*letters, _NUMERIC]:
        joined[a, [*letters, _NUMERIC]] = True
    joined[_HEBREW, _SINGLE] = True
    joined[_KATAKANA, _KATAKANA] = True
    for a in [*letters, _NUMERIC, _KATAKANA, _EXTEND_NUM_LET]:
        joined[a, _EXTEND_NUM_LET] = joined[_EXTEND_NUM_LET, a] = True
    return joined


_JOINED = _joins()
_table = functools.cache(load)


def word_ends(data: np.ndarray) -> np.ndarray:
    """``[n]`` uint8 of bytes to ``[n]`` uint8: 1 where a word, by UAX 29, ends with the byte."""
    return _ends(data, _table(), _JOINED, False, 0)


def hat_ends(data: np.ndarray, most_bytes: int) -> np.ndarray:
    """The same for the words of HAT (Neitemeier et al. 2025; the released splitter's rule): UAX 29
    words, cut at punctuation and between lower and upper case; then one single space may lead and
    punctuation may follow. Words above ``most_bytes`` are cut."""
    return _ends(data, _table(), _JOINED, True, most_bytes)


@compiled
def _classified(data, table, classes, lasts):
    """Class and last byte of every character; returns how many there are."""
    at = count = 0
    while at < len(data):
        if data[at] < 0x80:
            classes[count] = table[data[at]]
            at += 1
        else:
            point, size = character(data, at)
            classes[count] = table[point] if size else 0
            at += max(size, 1)
        lasts[count] = at - 1
        count += 1
    return count


@compiled
def _is_letter(c):
    return c == _LETTER or c == _HEBREW or c == _LETTER_PICTOGRAPH


@compiled
def _is_ignored(c):
    return c == _EXTEND or c == _FORMAT or c == _ZWJ


@compiled
def _next(classes, count, i):
    """The class after character i, past what WB4 ignores."""
    for k in range(i + 1, count):
        c = classes[k] & 31
        if not _is_ignored(c):
            return c
    return _OTHER


@compiled
def _ends(data, table, joined, hat, most_bytes):
    classes = np.empty(len(data), np.uint8)
    lasts = np.empty(len(data), np.int64)
    count = _classified(data, table, classes, lasts)
    ends = np.zeros(len(data), np.uint8)
    if count == 0:
        return ends
    # WB4: the newest character that is not ignored, the one before, and the flags in a row.
    base = classes[0] & 31
    before, flags = _OTHER, 1 if base == _FLAG else 0
    start = 0
    types = _hat_types(classes, lasts, data, count if hat else 0)
    for i in range(1, count):
        c, raw = classes[i] & 31, classes[i - 1] & 31
        if (raw == _LETTER and c == _LETTER) and base == _LETTER:
            brk = False  # most of all text
        elif (_CR <= raw <= _NEWLINE) or (_CR <= c <= _NEWLINE):
            brk = not (raw == _CR and c == _LF)  # WB3 to 3b
        elif _is_ignored(c):
            brk = False  # WB4
        elif raw == _ZWJ and (c == _PICTOGRAPH or c == _LETTER_PICTOGRAPH):
            brk = False  # WB3c
        elif raw == _SPACE and c == _SPACE:
            brk = False  # WB3d
        elif joined[base, c]:
            brk = False
        elif _is_letter(base) and (c == _MID_LETTER or c == _MID_NUM_LET or c == _SINGLE):
            brk = not _is_letter(_next(classes, count, i))  # WB6
        elif (base == _MID_LETTER or base == _MID_NUM_LET or base == _SINGLE) and _is_letter(c):
            brk = not _is_letter(before)  # WB7
        elif base == _HEBREW and c == _DOUBLE:
            brk = _next(classes, count, i) != _HEBREW  # WB7b
        elif base == _DOUBLE and c == _HEBREW:
            brk = before != _HEBREW  # WB7c
        elif base == _NUMERIC and (c == _MID_NUM or c == _MID_NUM_LET or c == _SINGLE):
            brk = _next(classes, count, i) != _NUMERIC  # WB12
        elif (base == _MID_NUM or base == _MID_NUM_LET or base == _SINGLE) and c == _NUMERIC:
            brk = before != _NUMERIC  # WB11
        elif base == _FLAG and c == _FLAG:
            brk = flags % 2 == 0  # WB15, 16
        else:
            brk = True
        if not _is_ignored(c) or (_CR <= raw <= _NEWLINE):
            before, base = base, c
            flags = flags + 1 if c == _FLAG else 0
        if hat and (brk or not _is_ignored(c)):
            humps = classes[i - 1] >> 5 == _LOWER and classes[i] >> 5 == _UPPER
            brk = _hat_break(types[i - 1], types[i], humps, brk)
        if hat:
            while lasts[i] - start >= most_bytes and not brk:
                # The word with this character is too long: cut it where it is full.
                ends[start + most_bytes - 1] = 1
                start += most_bytes
        if brk:
            ends[lasts[i - 1]] = 1
            start = lasts[i - 1] + 1
    ends[lasts[count - 1]] = 1
    return ends


@compiled
def _hat_types(classes, lasts, data, count):
    """Of each character: 0 of a word, 1 one single space, 2 other white space, 3 punctuation, 4 a
    space beside another."""
    types = np.zeros(count, np.uint8)
    for i in range(count):
        kind = classes[i] >> 5
        if kind == _PUNCTUATION:
            types[i] = 3
        elif kind == _WHITE:
            types[i] = 2
            if data[lasts[i]] == 32:
                after = i > 0 and data[lasts[i - 1]] == 32
                types[i] = 4 if after or (i + 1 < count and data[lasts[i + 1]] == 32) else 1
    return types


@inlined
def _hat_break(last, mine, humps, brk):
    """Whether a word begins with a character, given the types of it and of the one before, whether
    upper follows lower case, and whether a UAX 29 word begins."""
    if mine == 0:
        return brk or humps if last == 0 else last != 1
    if mine == 3:
        return last == 2 or last == 4
    return not (mine == 4 and last == 4)
