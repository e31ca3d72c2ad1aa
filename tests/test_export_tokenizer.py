"""Tokenizers as transformers reads them from an export: the same ids, and text that comes back."""

import json

import numpy as np
import pytest

from helpers import random_text, words
from octavo.interchange.tokenizer import tokenizer_config, tokenizer_json
from octavo.tokenizers import load
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.huggingface import HuggingFaceTokenizer
from octavo.tokenizers.words import WordTokenizer

transformers = pytest.importorskip("transformers")

DOCUMENTS = [*(words(i, 2000) for i in range(8)), *(random_text(i, 2000) for i in range(4))]
DOCUMENTS.append("日本語テキスト、中文 हिन्दी में العربية 12345 \n\n x  y".encode() * 5)
TEXTS = [
    "", " ", "the lazy dog jumps over très quick foxes. " * 9, "don't WE'LL It's 1234567890 3.14",
    "日本語テキスト、中文", "العربية 123", "हिन्दी में", "Ὅμηρος", "é\u0301 ñ", "👩‍👩‍👧‍👦🇩🇪",
    "\x02\x03\x10", "\x10B\x02PB\x10P", "<|bos|><|eos|> <|endoftext|><unk><s>", "\x7f\x1c\x85",
    "   \t\n\r\n  ", "\u200d\ufeff\u2028\uffff\ufffd\U0010ffff", "a" * 3000,
]  # fmt: skip
BEYOND = ["\x00\x00a\x00", "x▁y", "<0x41>"]
"""What Unigram of sentencepiece does not take."""


def theirs(tokenizer, folder):
    """What transformers reads of a tokenizer's file."""
    file = tokenizer_json(tokenizer)
    assert file is not None
    about = tokenizer_config(tokenizer, file, 512)
    for name, content in (("tokenizer.json", file), ("tokenizer_config.json", about)):
        (folder / name).write_text(json.dumps(content))
    return transformers.AutoTokenizer.from_pretrained(folder)


def check(tokenizer, folder, texts):
    found = theirs(tokenizer, folder)
    assert len(found) == tokenizer.vocab_size
    assert (found.bos_token_id, found.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    for text in texts:
        ids = tokenizer.encode(text.encode()).tolist()
        assert found.encode(text, add_special_tokens=False) == ids, text
        assert found.decode(ids) == text
        assert found(text)["input_ids"] == [tokenizer.bos_id, *ids]
        ended = [tokenizer.bos_id, *ids, tokenizer.eos_id]
        assert found.decode(ended, skip_special_tokens=True) == text


def test_bytes(tmp_path):
    """The three bytes that mean something are escaped, and come back."""
    check(ByteTokenizer(), tmp_path, [*TEXTS, *BEYOND, *map(chr, range(256))])
    rng = np.random.default_rng(0)
    mixed = ["".join(rng.choice([*"\x02\x03\x10BCP@"], 12)) for _ in range(50)]
    check(ByteTokenizer(), tmp_path, mixed)


SCHEMES = [
    ("bpe", {}), ("bpe", {"splitter": "gpt2", "digits": "right"}), ("bpe", {"splitter": "none"}),
    ("bpe", {"segmenter": "greedy"}), ("superbpe", {}), ("parity-bpe", {}), ("bytespan", {}),
    ("pathpiece", {}), ("unigram", {"splitter": "o200k"}),
]  # fmt: skip


@pytest.mark.parametrize(("scheme", "options"), SCHEMES)
def test_pieces(scheme, options, tmp_path):
    tokenizer = load.scheme(scheme).train(DOCUMENTS, 400, **options)
    check(tokenizer, tmp_path, [*TEXTS, *BEYOND])


def test_unigram_of_sentencepiece(tmp_path):
    check(load.scheme("unigram").train(DOCUMENTS, 350), tmp_path, TEXTS)


def test_a_file_of_theirs(tmp_path):
    """With the edge of a document behind its ids; special tokens in text are text."""
    library = pytest.importorskip("tokenizers")
    trainer = library.trainers.BpeTrainer(
        vocab_size=350, special_tokens=["<s>"], show_progress=False,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.Sequence(
        [library.pre_tokenizers.Punctuation(),
         library.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )  # fmt: skip
    made.decoder = library.decoders.ByteLevel()
    made.train_from_iterator([document.decode() for document in DOCUMENTS], trainer)
    made.save(str(tmp_path / "theirs.json"))
    tokenizer = load.load(tmp_path / "theirs.json")
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    check(tokenizer, tmp_path, [*TEXTS, *BEYOND])


def test_what_no_file_of_theirs_says():
    blocks = load.scheme("blocks").train(DOCUMENTS, 2)
    joined = load.scheme("boundlessbpe").train(DOCUMENTS, 300)
    for tokenizer in (WordTokenizer(), blocks, joined):
        assert tokenizer_json(tokenizer) is None
