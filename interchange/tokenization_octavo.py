"""Octavo's "words" tokenizer for transformers: the bytes of UTF-8, and a mark behind each word.

    AutoTokenizer.from_pretrained(FOLDER, trust_remote_code=True)

A word ends by rules that look ahead (UAX 29; "hat": those of HAT, 2501.10322), so that marks are
put where a text is encoded. All but the last word of a text have one; decoding drops them. Ids that
have a meaning of their own are written as an escape and the byte xor ``FLIP``, where text holds
them. Text begins with an id of its own, unless ``add_special_tokens`` is False.

The table (``words.json``) has each character's class of Unicode 15.0: of the Word_Break property in
the low five bits, and of what HAT asks further in the others.
"""

import json
import shutil
from bisect import bisect_right
from pathlib import Path

from transformers import PreTrainedTokenizer

CLASSES = (
    "Other", "CR", "LF", "Newline", "Extend", "Format", "ZWJ", "Regional_Indicator", "Katakana",
    "Hebrew_Letter", "ALetter", "Single_Quote", "Double_Quote", "MidNumLet", "MidLetter", "MidNum",
    "Numeric", "ExtendNumLet", "WSegSpace", "Other_Pictographic", "ALetter_Pictographic",
)  # fmt: skip
(
    OTHER, CR, LF, NEWLINE, EXTEND, FORMAT, ZWJ, FLAG, KATAKANA, HEBREW, LETTER, SINGLE, DOUBLE,
    MID_NUM_LET, MID_LETTER, MID_NUM, NUMERIC, EXTEND_NUM_LET, SPACE, PICTOGRAPH, LETTER_PICTOGRAPH,
) = range(len(CLASSES))  # fmt: skip
PUNCTUATION, LOWER, UPPER, WHITE = range(1, 5)
LETTERS = {HEBREW, LETTER, LETTER_PICTOGRAPH}
LINES = {CR, LF, NEWLINE}
IGNORED = {EXTEND, FORMAT, ZWJ}


def _joined() -> set[tuple[int, int]]:
    """Pairs that no break separates, whatever stands around them: WB5, 7a, 8-10, 13-13b."""
    words = {*LETTERS, NUMERIC}
    pairs = {(a, b) for a in words for b in words}
    pairs |= {(HEBREW, SINGLE), (KATAKANA, KATAKANA)}
    for one in (*words, KATAKANA, EXTEND_NUM_LET):
        pairs |= {(one, EXTEND_NUM_LET), (EXTEND_NUM_LET, one)}
    return pairs


JOINED = _joined()


def breaks(classes: list[int]) -> list[bool]:
    """Whether a word begins with each character, by UAX 29; and which are ignored there (WB4) is
    seen by their class."""
    found, count = [True], len(classes)
    # The newest character that is not ignored, the one before it, and the flags in a row.
    base, before = classes[0], OTHER
    flags = int(base == FLAG)
    for i in range(1, count):
        c, last = classes[i], classes[i - 1]
        if last in LINES or c in LINES:
            new = not (last == CR and c == LF)  # WB3 to 3b
        elif c in IGNORED:
            new = False  # WB4
        elif (last == ZWJ and c in (PICTOGRAPH, LETTER_PICTOGRAPH)) or last == c == SPACE:
            new = False  # WB3c, 3d
        elif (base, c) in JOINED:
            new = False
        elif base in LETTERS and c in (MID_LETTER, MID_NUM_LET, SINGLE):
            new = _next(classes, i) not in LETTERS  # WB6
        elif base in (MID_LETTER, MID_NUM_LET, SINGLE) and c in LETTERS:
            new = before not in LETTERS  # WB7
        elif base == HEBREW and c == DOUBLE:
            new = _next(classes, i) != HEBREW  # WB7b
        elif base == DOUBLE and c == HEBREW:
            new = before != HEBREW  # WB7c
        elif base == NUMERIC and c in (MID_NUM, MID_NUM_LET, SINGLE):
            new = _next(classes, i) != NUMERIC  # WB12
        elif base in (MID_NUM, MID_NUM_LET, SINGLE) and c == NUMERIC:
            new = before != NUMERIC  # WB11
        elif base == c == FLAG:
            new = flags % 2 == 0  # WB15, 16
        else:
            new = True
        found.append(new)
        if c not in IGNORED or last in LINES:
            before, base = base, c
            flags = flags + 1 if c == FLAG else 0
    return found


def _next(classes: list[int], i: int) -> int:
    """The class after character i, past what WB4 ignores."""
    return next((c for c in classes[i + 1 :] if c not in IGNORED), OTHER)


def hat_types(text: str, kinds: list[int]) -> list[int]:
    """Of each character: 0 of a word, 1 one single space, 2 other white space, 3 punctuation, 4 a
    space beside another."""
    found = []
    for i, kind in enumerate(kinds):
        type_ = {PUNCTUATION: 3, WHITE: 2}.get(kind, 0)
        if kind == WHITE and text[i] == " ":
            type_ = 4 if " " in (text[i - 1 : i], text[i + 1 : i + 2]) else 1
        found.append(type_)
    return found


def hat_break(last: int, mine: int, humps: bool, new: bool) -> bool:
    """Whether a word of HAT begins with a character, given the types of it and of the one before,
    whether upper follows lower case, and whether a UAX 29 word begins."""
    if mine == 0:
        return new or humps if last == 0 else last != 1
    if mine == 3:
        return last in (2, 4)
    return not mine == last == 4


class OctavoWordTokenizer(PreTrainedTokenizer):
    vocab_files_names = {"vocab_file": "words.json"}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file, **others):
        self.vocab_file = str(vocab_file)
        about = json.loads(Path(vocab_file).read_text(encoding="utf-8"))
        self.starts, self.values = about["starts"], about["values"]
        self.hat, self.most_bytes = about["rule"] == "hat", about["most_bytes"]
        self.escape, self.flip, self.mark = about["escape"], about["flip"], about["mark"]
        self.edges = {others["bos_token"]: about["bos"], others["eos_token"]: about["eos"]}
        self.special = {self.escape, self.mark, *self.edges.values()}
        # Text that spells a token is text.
        super().__init__(**{"split_special_tokens": True} | others)

    @property
    def vocab_size(self):
        return 256

    def get_vocab(self):
        """Each byte by the character of its number; the edges of documents by their names."""
        edges = {id_: name for name, id_ in self.edges.items()}
        return {edges.get(byte, chr(byte)): byte for byte in range(256)}

    def _convert_token_to_id(self, token):
        return self.edges.get(token, ord(token[0]))

    def _convert_id_to_token(self, index):
        return chr(index)

    def _tokenize(self, text, **others):
        data = text.encode("utf-8", "surrogateescape")
        ends = self.word_ends(text)
        ids = []
        for at, byte in enumerate(data):
            ids += [self.escape, byte ^ self.flip] if byte in self.special else [byte]
            if at in ends:
                ids.append(self.mark)
        return [chr(id_) for id_ in ids]

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        return [self.bos_token_id, *token_ids_0, *(token_ids_1 or [])]

    def word_ends(self, text: str) -> set[int]:
        """Bytes at which all words but the last of a text end."""
        classes, kinds = [], []
        for character in text:
            found = self.values[bisect_right(self.starts, ord(character)) - 1]
            # What is no character, a byte of what is no UTF-8, has no class.
            found = 0 if "\ud800" <= character <= "\udfff" else found
            classes.append(found & 31)
            kinds.append(found >> 5)
        if not text:
            return set()
        new, types = breaks(classes), hat_types(text, kinds)
        ends, start, at = set(), 0, 0
        for i, character in enumerate(text):
            begins, size = new[i], len(character.encode("utf-8", "surrogateescape"))
            if self.hat and i:
                if begins or classes[i] not in IGNORED:
                    humps = kinds[i - 1] == LOWER and kinds[i] == UPPER
                    begins = hat_break(types[i - 1], types[i], humps, begins)
                # A word that is too long with this character is cut where it is full.
                while not begins and at + size - 1 - start >= self.most_bytes:
                    start += self.most_bytes
                    ends.add(start - 1)
            if begins and i:
                ends.add(at - 1)
                start = at
            at += size
        return ends - {at - 1}

    def convert_tokens_to_string(self, tokens):
        data, escaped = bytearray(), False
        for id_ in map(self._convert_token_to_id, tokens):
            if escaped:
                data.append(id_ ^ self.flip)
                escaped = False
            elif id_ == self.escape:
                escaped = True
            elif id_ not in self.special:
                data.append(id_)
        return data.decode("utf-8", "replace")

    def save_vocabulary(self, save_directory, filename_prefix=None):
        name = self.vocab_files_names["vocab_file"]
        out = Path(save_directory) / (f"{filename_prefix}-{name}" if filename_prefix else name)
        if out.resolve() != Path(self.vocab_file).resolve():
            shutil.copyfile(self.vocab_file, out)
        return (str(out),)
