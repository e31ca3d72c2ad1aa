"""Regular expressions over bytes, as automata (decoding/automata.py).

The patterns are those of Python's ``re``, read by its own parser; what no automaton can follow is
refused. They are of bytes: ``.`` is one byte but a newline, ``\\xe9`` that byte, and a character of
the pattern its UTF-8, also in a class and under a quantifier. Or of characters, where the text is
UTF-8 anyway: then ``.``, ``[^...]`` and ``\\xe9`` are of characters. In both, ``\\w``, ``\\d``,
``\\s`` and ``(?i)`` are of ASCII. A text matches whole: anchors at its ends change nothing.

Libraries that make automata of patterns make them of characters (interegular, greenery), or not of
any bytes (outlines-core); from the syntax tree it is little.
"""

import re
from collections.abc import Iterator
from re import _constants as ops  # pyright: ignore[reportAttributeAccessIssue]
from re import _parser  # pyright: ignore[reportAttributeAccessIssue]

import numpy as np

from octavo.configs.checks import ConfigError
from octavo.decoding.automata import Dfa, completed

MOST_STATES = 10_000
"""Of an automaton."""
_MOST_EDGES = 50_000
_CHARACTER = 1 << 24
"""What a character above ASCII counts from in a set; bytes count from 0."""
_LAST = 0x10FFFF
_PRIVATE = 0xF0000
"""Characters of a pattern of bytes stand here while it is parsed: an escape gives none of them."""

Ranges = list[tuple[int, int]]
"""First and last of each, bytes or characters."""

_CATEGORIES: dict[object, Ranges] = {
    ops.CATEGORY_DIGIT: [(0x30, 0x39)],
    ops.CATEGORY_SPACE: [(0x09, 0x0D), (0x20, 0x20)],
    ops.CATEGORY_WORD: [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
}
_NOT = {
    ops.CATEGORY_NOT_DIGIT: ops.CATEGORY_DIGIT,
    ops.CATEGORY_NOT_SPACE: ops.CATEGORY_SPACE,
    ops.CATEGORY_NOT_WORD: ops.CATEGORY_WORD,
}
_BEGINS, _ENDS = (ops.AT_BEGINNING, ops.AT_BEGINNING_STRING), (ops.AT_END, ops.AT_END_STRING)
_REFUSED = {
    ops.GROUPREF: "a reference to a group",
    ops.GROUPREF_EXISTS: "a condition on a group",
    ops.ASSERT: "looking ahead or behind",
    ops.ASSERT_NOT: "looking ahead or behind",
    ops.ATOMIC_GROUP: "an atomic group",
    ops.POSSESSIVE_REPEAT: "a possessive quantifier",
    ops.AT: r"an anchor inside the pattern or \b",
}


def automaton(pattern: str, characters: bool = False) -> Dfa:
    """Of the texts that match all of a pattern: of bytes, or of characters. From every state an
    accepting one can be reached. Raises ConfigError for a pattern that is wrong, cannot be followed
    byte by byte, matches nothing, or has too many states."""
    found = _Compiler(pattern, characters)
    begin, end = found.state(), found.state()
    try:
        parsed = _parser.parse(found.prepared(), re.ASCII)
        found.sequence(list(parsed), parsed.state.flags, begin, end, (True, True))
    except ConfigError:
        raise
    except (re.error, ValueError, OverflowError) as error:
        raise ConfigError(f"the pattern {pattern!r:.80} is wrong: {error}.") from error
    except RecursionError as error:
        raise ConfigError(f"the pattern {pattern!r:.80} is nested too deep.") from error
    return _determined(found, begin, end)


class _Compiler:
    """States and edges of what a pattern's syntax tree says (Thompson's construction)."""

    def __init__(self, pattern: str, characters: bool):
        self.pattern, self.of_characters = pattern, characters
        self.any: Ranges = [(0, 0xFF)]
        if characters:
            self.any = [(0, 0x7F), (_CHARACTER + 0x80, _CHARACTER + _LAST)]
        self.edges: list[list[tuple[int, int, int]]] = []
        """Of each state: first and last byte, and where they lead."""
        self.silent: list[list[int]] = []
        self._count = 0
        self._stand_in: list[str] = []

    def prepared(self) -> str:
        """The pattern as the parser reads it."""
        if self.of_characters:
            return self.pattern

        def plain(found: re.Match) -> str:
            if found[1] == "N":
                raise self.refusal(r"\N{...}", "Write the character itself.")
            if found[1][0] not in "uU" or not found[1][1:]:
                return found[0]
            code = int(found[1][1:], 16)
            return chr(code) if code > 0x7F else rf"\x{code:02x}"  # which may mean something bare

        text = re.sub(r"(?s)\\(u[0-9a-fA-F]{4}|U00[0-9a-fA-F]{6}|.)", plain, self.pattern)
        self._stand_in = sorted({c for c in text if ord(c) > 0x7F})
        return text.translate(
            {ord(c): _PRIVATE + number for number, c in enumerate(self._stand_in)}
        )

    def refusal(self, what: str, advice: str = "") -> ConfigError:
        return ConfigError(
            f"the pattern {self.pattern!r:.80} has {what}, which cannot be followed byte by byte. "
            f"{advice}".rstrip()
        )

    def state(self) -> int:
        self.edges.append([])
        self.silent.append([])
        return len(self.edges) - 1

    def _edge(self, begin: int, first: int, last: int, end: int) -> None:
        self._count += 1
        if self._count > _MOST_EDGES:
            raise ConfigError(f"the pattern {self.pattern!r:.80} says too much: repeat less.")
        self.edges[begin].append((first, last, end))

    def sequence(
        self, items: list, flags: int, begin: int, end: int, edges: tuple[bool, bool]
    ) -> None:
        """What is read between two states. edges: whether the first is the text's begin, and the
        last its end."""
        at_begin, at_end = edges
        while items and at_begin and items[0][0] is ops.AT and items[0][1] in _BEGINS:
            items = items[1:]
        while items and at_end and items[-1][0] is ops.AT and items[-1][1] in _ENDS:
            items = items[:-1]
        for number, (op, value) in enumerate(items):
            last = number == len(items) - 1
            then = self.state()
            self._item(op, value, flags, begin, then, (at_begin and not number, at_end and last))
            begin = then
        self.silent[begin].append(end)

    def _item(self, op, value, flags: int, begin: int, end: int, edges: tuple[bool, bool]) -> None:
        if op is ops.LITERAL:
            self._set(self._folded(self._codes(value, value), flags), begin, end)
        elif op is ops.NOT_LITERAL:
            self._set(self._other(self._folded(self._codes(value, value), flags)), begin, end)
        elif op is ops.ANY:
            line = [] if flags & re.DOTALL else [(0x0A, 0x0A)]
            self._set(self._other(line), begin, end)
        elif op is ops.IN:
            self._set(self._class(value, flags), begin, end)
        elif op is ops.BRANCH:
            for branch in value[1]:
                self.sequence(list(branch), flags, begin, end, edges)
        elif op is ops.SUBPATTERN:
            _, more, less, inside = value
            self.sequence(list(inside), (flags | more) & ~less, begin, end, edges)
        elif op in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            least, most, inside = value
            self._repeat(least, most, inside, flags, begin, end)
        else:
            raise self.refusal(_REFUSED.get(op, str(op).lower()))

    def _repeat(self, least: int, most: int, inside, flags: int, begin: int, end: int) -> None:
        def once(begin: int) -> int:
            self._count += 1  # also of what is empty
            if self._count > _MOST_EDGES:
                raise ConfigError(f"the pattern {self.pattern!r:.80} says too much: repeat less.")
            then = self.state()
            self.sequence(list(inside), flags, begin, then, (False, False))
            return then

        for _ in range(least):
            begin = once(begin)
        if most is ops.MAXREPEAT:
            loop = self.state()
            self.silent[begin].append(loop)
            self.silent[once(loop)].append(loop)
            self.silent[loop].append(end)
            return
        for _ in range(most - least):
            self.silent[begin].append(end)
            begin = once(begin)
        self.silent[begin].append(end)

    def _class(self, items: list, flags: int) -> Ranges:
        found: Ranges = []
        negated = False
        for op, value in items:
            if op is ops.NEGATE:
                negated = True
            elif op is ops.LITERAL:
                found += self._codes(value, value)
            elif op is ops.RANGE:
                found += self._codes(*value)
            elif op is ops.CATEGORY and value in _NOT:
                found += self._other(_CATEGORIES[_NOT[value]])
            elif op is ops.CATEGORY:
                found += _CATEGORIES[value]
            else:
                raise self.refusal(str(op).lower())
        found = self._folded(found, flags)
        return self._other(found) if negated else found

    def _codes(self, first: int, last: int) -> Ranges:
        """What the parser's numbers stand for."""
        first, last = self._code(first), self._code(last)
        if first < _CHARACTER <= last:
            if first > 0x7F:
                raise self.refusal("a range from a byte to a character")
            return [(first, 0x7F), (_CHARACTER + 0x80, last)]
        return [(first, last)]

    def _code(self, number: int) -> int:
        if self.of_characters:
            return number if number < 0x80 else _CHARACTER + number
        if number < _PRIVATE:
            return number
        number = ord(self._stand_in[number - _PRIVATE])
        # A byte of the command line that is no UTF-8.
        return number - 0xDC00 if 0xDC80 <= number <= 0xDCFF else _CHARACTER + number

    def _folded(self, ranges: Ranges, flags: int) -> Ranges:
        """With the letters of the other case, of ASCII, where that is asked."""
        if not flags & re.IGNORECASE:
            return ranges
        more = []
        for first, last in ranges:
            for low, high, by in ((0x41, 0x5A, 0x20), (0x61, 0x7A, -0x20)):
                if (a := max(first, low)) <= (b := min(last, high)):
                    more.append((a + by, b + by))
        return ranges + more

    def _other(self, ranges: Ranges) -> Ranges:
        """All that is not among them."""
        if not self.of_characters and any(last >= _CHARACTER for _, last in ranges):
            raise self.refusal(
                "all but a character",
                "With --valid-utf8 the pattern is of characters, and [^...] may hold any.",
            )
        found = []
        for low, high in self.any:
            for first, last in sorted(ranges):
                if first > low:
                    found.append((low, min(first - 1, high)))
                low = max(low, last + 1)
                if low > high:
                    break
            if low <= high:
                found.append((low, high))
        return [(low, high) for low, high in found if low <= high]

    def _set(self, ranges: Ranges, begin: int, end: int) -> None:
        """One of these, between two states."""
        made: dict[tuple[tuple[int, int], ...], int] = {(): end}

        def before(rest: tuple[tuple[int, int], ...]) -> int:
            """The state in which the rest of a character is to come."""
            if rest not in made:
                made[rest] = self.state()
                low, high = rest[0]
                self._edge(made[rest], low, high, before(rest[1:]))
            return made[rest]

        for first, last in ranges:
            if last < _CHARACTER:
                self._edge(begin, first, last, end)
                continue
            for (low, high), *rest in _encoded(first - _CHARACTER, last - _CHARACTER):
                self._edge(begin, low, high, before(tuple(rest)))


def _encoded(first: int, last: int) -> Iterator[list[tuple[int, int]]]:
    """The UTF-8 of characters from first to last: sequences of ranges of bytes."""
    for cut in (0x7F, 0x7FF, 0xD7FF, 0xDFFF, 0xFFFF):
        if first <= cut < last:
            yield from _encoded(first, cut)
            yield from _encoded(cut + 1, last)
            return
    if 0xD800 <= first <= 0xDFFF:  # no characters
        return
    for bits in (6, 12, 18):
        low = (1 << bits) - 1
        if first & ~low != last & ~low:
            cut = first | low if first & low else (last & ~low) - 1
            if first & low or last & low != low:
                yield from _encoded(first, cut)
                yield from _encoded(cut + 1, last)
                return
    yield list(zip(chr(first).encode(), chr(last).encode(), strict=True))


def _determined(made: _Compiler, begin: int, end: int) -> Dfa:
    """The automaton of one state at a time (the subset construction), without states from which
    nothing is accepted."""
    edges = np.array([edge for each in made.edges for edge in each], int).reshape(-1, 3)
    cuts = np.unique(np.concatenate([[0, 256], edges[:, 0], edges[:, 1] + 1]))[:-1]
    # Bytes between two cuts are alike: of each state, where each such kind leads.
    leads: list[list[tuple[range, int]]] = []
    for each in made.edges:
        at = [np.searchsorted(cuts, (first, last + 1)).tolist() for first, last, _ in each]
        leads.append([(range(a, b), to) for (a, b), (*_, to) in zip(at, each, strict=True)])

    def closed(states: set[int]) -> frozenset[int]:
        found, new = set(states), list(states)
        while new:
            for other in made.silent[new.pop()]:
                if other not in found:
                    found.add(other)
                    new.append(other)
        # What leads nowhere by a byte is told by the end alone.
        return frozenset(s for s in found if leads[s] or s == end)

    first = closed({begin})
    numbers, order, rows = {first: 0}, [first], []
    for states in order:  # which grows
        reached: dict[int, set[int]] = {}
        for state in states:
            for kinds, to in leads[state]:
                for kind in kinds:
                    reached.setdefault(kind, set()).add(to)
        row = np.full(len(cuts), -1)
        known: dict[frozenset, int] = {}
        for kind, to in reached.items():
            key = frozenset(to)
            if key not in known:
                then = closed(to)
                if then not in numbers:
                    numbers[then] = len(order)
                    order.append(then)
                known[key] = numbers[then]
            row[kind] = known[key]
        rows.append(row)
        if len(order) > MOST_STATES:
            raise ConfigError(
                f"the pattern {made.pattern!r:.80} has more than {MOST_STATES:,} states: repeat "
                "less."
            )
    table, accepts = np.array(rows), np.array([end in states for states in order])
    live = completed(table, accepts)
    if not live[0]:
        raise ConfigError(f"the pattern {made.pattern!r:.80} matches no text.")
    renamed = np.append(np.where(live, np.cumsum(live) - 1, -1), -1)
    table = np.repeat(renamed[table[live]], np.diff(np.append(cuts, 256)), axis=1)
    nowhere = np.full((1, 256), -1)
    return Dfa(np.concatenate([table, nowhere]).astype(np.int16), accepts[live])
