"""Huffman words (after Chitnis & DeNero 2015): frequent words are one id each, the others codes of
ids that mean nothing, as short as a Huffman tree makes them. A control arm that follows Zipf's law
and hides spelling.

So that every id still stands for a number of bytes, a word is coded among those of its length: the
first id of a code stands for all bytes of the word, and those that follow, which all words share,
for none. Words that were not counted are spelled by bytes.
"""

import functools
import heapq
import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from octavo.compiled import compiled
from octavo.tokenizers.interface import TrainedTokenizer, base64_bytes, base64_text, fingerprint_of
from octavo.tokenizers.parts import splitters
from octavo.tokenizers.parts.tables import MISSING, find, trie
from octavo.tokenizers.parts.text import Progress, Text, quiet

MOST_WORDS = 1 << 18
LEAST = 2
"""Occurrences of a word that has a code."""
_TAILS = 256
"""Ids that all codes share, at most."""
_DEEPEST = 64
"""Ids of a code: a Huffman tree of fewer than 2^40 words is less deep."""


class HuffmanTokenizer(TrainedTokenizer):
    """words: byte strings. codes: the ids of each. tails: how many ids, from 256 on, only follow.

    Raises ValueError unless no code begins with another, and all words whose codes have the same
    first id are of one length.
    """

    scheme = "huffman"
    usage = {"huffman:SIZE": "words as Huffman codes (a control)"}
    fields = ("pattern", "tails", "words", "codes")
    options = {"splitter": str, "digits": str}

    def __init__(self, words: list[bytes], codes: list[list[int]], tails: int, pattern: str):
        first = 256 + tails
        self.words, self.codes, self.tails, self.pattern = words, codes, tails, pattern
        self.vocab_size = max((code[0] for code in codes), default=first - 1) + 2
        self.bos_id = self.eos_id = self.vocab_size - 1
        self._sizes = np.zeros(self.vocab_size, np.int32)
        self._sizes[:256] = 1
        self._tree: dict[int, Any] = {}
        splitters.ends(b"", pattern)  # raises if it is no regular expression
        if len(words) != len(codes) or len(set(words)) != len(words) or b"" in words:
            raise ValueError("each word, not empty, has one code")
        for word, code in zip(words, codes, strict=True):
            fits = code and code[0] >= first and all(256 <= i < first for i in code[1:])
            if not fits or self._sizes[code[0]] not in (0, len(word)):
                raise ValueError(f"{code!r:.40} is no code of a word of {len(word)} bytes")
            self._sizes[code[0]] = len(word)
            node = self._tree
            for id_ in code[:-1]:
                node = node.setdefault(id_, {})
                if not isinstance(node, dict):
                    raise ValueError(f"the code {code!r:.40} begins with another")
            if code[-1] in node:
                raise ValueError(f"the code {code!r:.40} is of two words, or begins another")
            node[code[-1]] = word

    @property
    def name(self) -> str:
        return f"huffman-{self.vocab_size}"

    @functools.cached_property
    def fingerprint(self) -> str:
        codes = np.array([*itertools.chain(*self.codes)], np.uint32)
        return fingerprint_of(b"huffman", self.pattern.encode(), codes.tobytes(), *self.words)

    @classmethod
    def train(
        cls,
        documents: Iterable[bytes],
        vocab_size: int,
        *,
        splitter: str = "cl100k",
        digits: str = "pattern",
        progress: Progress = quiet,
    ) -> Self:
        """Learn codes of ``vocab_size`` ids from documents; fewer if there are fewer words."""
        text = Text(documents, splitters.pattern(splitter, digits), digits, progress=progress)
        counts = Counter({w: c for w, c in text.counts.items() if len(w) > 1 and c >= LEAST})
        tails = min(_TAILS, (vocab_size - 257) // 4)
        words, codes = _forest(counts.most_common(MOST_WORDS), vocab_size - 257 - tails, tails)
        return cls(words, codes, tails, text.pattern)

    @functools.cached_property
    def _tables(self) -> tuple:
        offsets = np.cumsum([0, *map(len, self.codes)])
        return (*trie(self.words), offsets, np.array([*itertools.chain(*self.codes)], np.int32))

    def encode(self, data: bytes) -> np.ndarray:
        text, ends = np.frombuffer(data, np.uint8), splitters.ends(data, self.pattern)
        keys, children, piece_of, offsets, codes = self._tables
        found = np.empty(len(text), np.int32)
        count = _find(text, ends, keys, children, piece_of, offsets, found)
        out = np.empty(count, np.int32)
        _encode(text, ends, found, offsets, codes, out)
        return out.astype(self.dtype)

    def decode(self, ids: np.ndarray) -> bytes:
        ids = np.asarray(ids)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise ValueError(f"an id lies below {self.vocab_size}, found {ids.min()}..{ids.max()}")
        out, node = bytearray(), self._tree
        for id_ in ids.tolist():
            if id_ < 256:
                out.append(id_)
                node = self._tree
                continue
            if id_ not in node:  # a code that breaks off stands for nothing
                node = self._tree
            node = node.get(id_, self._tree)
            if isinstance(node, bytes):
                out += node
                node = self._tree
        return bytes(out)

    def bytes_per_id(self) -> np.ndarray:
        return self._sizes

    def to_json(self) -> dict:
        return {
            "scheme": self.scheme,
            "pattern": self.pattern,
            "tails": self.tails,
            "words": [base64_text(word) for word in self.words],
            "codes": self.codes,
        }

    @classmethod
    def from_json(cls, data: dict) -> Self:
        words, codes, tails, pattern = (data[k] for k in ("words", "codes", "tails", "pattern"))
        if not (isinstance(words, list) and isinstance(codes, list) and isinstance(pattern, str)):
            raise ValueError("words and codes are lists and the pattern a string")
        if type(tails) is not int or not 0 <= tails <= _TAILS:
            raise ValueError(f"tails is a number up to {_TAILS}, not {tails!r:.40}")
        for code in codes:
            known = type(code) is list and 0 < len(code) <= _DEEPEST
            if not known or any(type(i) is not int or i >= 1 << 24 for i in code):
                raise ValueError(f"{code!r:.40} is no code")
        return cls([base64_bytes(word) for word in words], codes, tails, pattern)


def _forest(
    words: list[tuple[bytes, int]], roots: int, tails: int
) -> tuple[list[bytes], list[list[int]]]:
    """Words and their codes, of ``roots`` first ids: of all nodes of one length, again and again
    the ``tails`` lightest become one, where that is cheapest (Huffman)."""
    if roots <= 0 or tails < 2:
        words = words[: max(roots, 0)]
    order = itertools.count()
    heaps: dict[int, list] = {}
    for word, count in words:
        heaps.setdefault(len(word), []).append((count, next(order), word))
    left = sum(map(len, heaps.values()))
    for heap in heaps.values():
        heapq.heapify(heap)

    def price(size: int, most: int) -> float:
        """Weight that is one id longer, for each node fewer."""
        parts = _lightest(heaps[size], most)
        for part in parts:
            heapq.heappush(heaps[size], part)
        return sum(part[0] for part in parts) / (len(parts) - 1) if len(parts) > 1 else np.inf

    prices, priced = {}, 0
    while left > roots:
        # As many as are needed, of the length at which they weigh least.
        most = min(tails, left - roots + 1)
        if most != priced:
            prices, priced = {size: price(size, most) for size in heaps}, most
        best = min(prices, key=prices.__getitem__)
        if prices[best] == np.inf:  # fewer ids than lengths: the rarest length goes
            rarest = min(heaps, key=lambda size: heaps[size][0][0])
            left -= len(heaps.pop(rarest))
            del prices[rarest]
            continue
        parts = _lightest(heaps[best], most)
        node = sum(part[0] for part in parts), next(order), [part[2] for part in parts[::-1]]
        heapq.heappush(heaps[best], node)
        left -= len(parts) - 1
        prices[best] = price(best, most)
    found: list[tuple[bytes, list[int]]] = []
    nodes = sorted((n for heap in heaps.values() for n in heap), key=lambda n: (-n[0], n[1]))
    for i, (_, _, node) in enumerate(nodes):
        stack = [(node, [256 + tails + i])]
        while stack:
            node, code = stack.pop()
            if isinstance(node, bytes):
                found.append((node, code))
            else:
                stack += [(part, [*code, 256 + j]) for j, part in enumerate(node)][::-1]
    return [word for word, _ in found], [code for _, code in found]


def _lightest(heap: list, most: int) -> list:
    """Taken from the heap."""
    return [heapq.heappop(heap) for _ in range(min(most, len(heap)))]


@compiled
def _find(data, ends, keys, children, piece_of, offsets, found):
    """Which word each pre-token is, at its last byte in ``found`` (-1: none); returns how many ids
    they are."""
    count = start = 0
    for at in range(len(data)):
        if not ends[at] and at + 1 < len(data):
            continue
        node = np.int64(0)
        for i in range(start, at + 1):
            node = np.int64(find(keys, children, node << 8 | np.int64(data[i])))
            if node == MISSING:
                break
        word = piece_of[node] if node > 0 else np.int32(MISSING)
        found[at] = word
        count += at + 1 - start if word == MISSING else offsets[word + 1] - offsets[word]
        start = at + 1
    return count


@compiled
def _encode(data, ends, found, offsets, codes, out):
    filled = start = 0
    for at in range(len(data)):
        if not ends[at] and at + 1 < len(data):
            continue
        word = found[at]
        if word == MISSING:
            for i in range(start, at + 1):
                out[filled] = data[i]
                filled += 1
        else:
            for i in range(offsets[word], offsets[word + 1]):
                out[filled] = codes[i]
                filled += 1
        start = at + 1
