"""Words that a program or a function cuts (into morphemes, or the parts of compounds) before a
vocabulary is learned and wherever text is encoded.

What it says of the most frequent words of the training text is kept in the tokenizer's file, so
that the file alone says how any text is cut; other words are not cut.
"""

import functools
import os
import shlex
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable

import numpy as np

from octavo.compiled import compiled
from octavo.tokenizers.parts import splitters
from octavo.tokenizers.parts.tables import MISSING, find, trie

MOST_WORDS = 200_000
MOST_SECONDS = 3600
"""That a program may take."""
Cut = Callable[[list[str]], list[list[str]]]
"""Of each word, its parts."""


class Presegmented:
    """words: where each word is cut, bytes from its start. Raises ValueError for what is no cut."""

    def __init__(self, words: dict[str, list[int]]):
        for word, cuts in words.items():
            try:
                size = len(word.encode())
            except UnicodeEncodeError as error:
                raise ValueError(f"presegmented has {word!r:.40}, which is no text") from error
            inside = isinstance(cuts, list) and all(type(c) is int and 0 < c < size for c in cuts)
            if not inside:
                raise ValueError(f"presegmented cuts {word!r:.40} at {cuts!r:.40}, not inside it")
        self.words = words

    @functools.cached_property
    def _tables(self) -> tuple:
        offsets = np.cumsum([0, *map(len, self.words.values())])
        cuts = np.array([cut for of in self.words.values() for cut in of], np.int64)
        return (*trie([word.encode() for word in self.words]), offsets, cuts)

    def refine(self, data: bytes, ends: np.ndarray) -> np.ndarray:
        """``ends`` of pre-tokens, and of the parts of their words."""
        _refine(np.frombuffer(data, np.uint8), ends, *self._tables)
        return ends


def ends(data: bytes, pattern: str, words: Presegmented | None) -> np.ndarray:
    """Where the pre-tokens of a pattern end, and the parts of words in them, uint8 ``[bytes]``."""
    found = splitters.ends(data, pattern)
    return words.refine(data, found) if words else found


@compiled
def _refine(data, ends, keys, children, piece_of, offsets, cuts):
    start = 0
    for at in range(len(data)):
        if not ends[at] and at + 1 < len(data):
            continue
        first = start + 1 if data[start] == 0x20 and start < at else start
        node = np.int64(0)
        for i in range(first, at + 1):
            node = np.int64(find(keys, children, node << 8 | np.int64(data[i])))
            if node == MISSING:
                break
        if node > 0 and piece_of[node] != MISSING:
            word = piece_of[node]
            for i in range(offsets[word], offsets[word + 1]):
                ends[first + cuts[i] - 1] = 1
        start = at + 1


def presegmented(counts: Counter[bytes], cut: str | Cut) -> Presegmented:
    """What ``cut`` says of the words among pre-tokens: letters alone, without a leading space.

    A command gets a word a line on its standard input, and answers each with a line: its parts,
    with spaces between. Raises ValueError if it does not.
    """
    words: Counter[str] = Counter()
    for pre_token, count in counts.items():
        word = pre_token.removeprefix(b" ").decode("utf-8", "replace")
        if word.isalpha():
            words[word] += count
    asked = [word for word, _ in words.most_common(MOST_WORDS)]
    parts = _by_command(cut, asked) if isinstance(cut, str) else [*cut(asked)]
    if len(parts) != len(asked):
        raise ValueError(f"presegment answered {len(parts)} of {len(asked)} words")
    found: dict[str, list[int]] = {}
    for word, of in zip(asked, parts, strict=True):
        if "".join(of) != word:
            said = " ".join(of)
            raise ValueError(f"presegment cuts {word!r:.40} into {said!r:.60}, of other letters")
        sizes = [len(part.encode()) for part in of if part]
        if len(sizes) > 1:
            found[word] = np.cumsum(sizes)[:-1].tolist()
    return Presegmented(found)


def _by_command(command: str, words: list[str]) -> list[list[str]]:
    asked = "".join(f"{word}\n" for word in words).encode()
    most = 16 * len(asked) + 1024
    late = threading.Event()
    try:
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaints:
            given.write(asked)
            given.seek(0)
            with subprocess.Popen(
                shlex.split(command), stdin=given, stdout=subprocess.PIPE, stderr=complaints
            ) as program:
                assert program.stdout is not None
                timer = threading.Timer(MOST_SECONDS, lambda: (late.set(), program.kill()))
                timer.start()
                try:
                    answer = program.stdout.read(most + 1)
                    if len(answer) <= most:
                        program.wait()
                finally:  # one that goes on is not waited for, nor where we are told to end
                    program.kill()
                    timer.cancel()
            complaints.seek(0, os.SEEK_END)
            complaints.seek(max(complaints.tell() - 4096, 0))
            said = complaints.read().decode("utf-8", errors="replace").strip()
        lines = answer[:most].decode().splitlines()
    except (OSError, ValueError, IndexError) as error:
        raise ValueError(f"presegment {command!r:.80} cannot be run: {error}") from error
    if late.is_set():
        raise ValueError(f"presegment {command!r:.80} took more than {MOST_SECONDS:,} seconds")
    if len(answer) > most:
        raise ValueError(f"presegment {command!r:.80} answers without end")
    if program.returncode:
        last = f": {said.splitlines()[-1]:.200}" if said else ""
        raise ValueError(f"presegment {command!r:.80} ended with {program.returncode}{last}")
    return [line.split() for line in lines]
