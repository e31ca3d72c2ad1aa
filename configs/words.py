"""Word-pooled models: the bytes of a word become a vector, words are modelled, and the bytes of
each word are decoded from the word before, all words side by side.

words: Learn Your Tokens (Thawani et al. 2023, 2310.11628), with words that end at white space.

    python train.py words

words-4: the same with the published depth and number of vectors: two layers around, four a word.
hat: Hierarchical Autoregressive Transformer (Neitemeier et al. 2025, 2501.10322), the version with
a word symbol, on Unicode words.

    python train.py hat

hat-released: HAT as its models are released: cross-attention in and out, a word known by the first
byte of the next.
"""

from dataclasses import replace

from octavo.configs.model import ModelConfig, StageConfig
from octavo.configs.schema import Config, DataConfig

WORD = StageConfig(
    segmenter="whitespace", max_unit=32, capacity=0.2, width=64, heads=2,
    encoder_layers=1, encoder_scope="unit", pool="prefix", slots=1,
    unpool="prefix", decoder_layers=1, decoder_scope="unit",
)  # fmt: skip


MINUTES = {"words": 1.7, "hat": 1.8}
"""On two CPU cores (docs/models.md)."""


def presets() -> dict[str, Config]:
    words = Config(
        model=ModelConfig(width=136, layers=3, heads=4, stages=(WORD,)),
        data=DataConfig(length=512, batch_size=8),
    )
    deep = replace(WORD, slots=4, encoder_layers=2, decoder_layers=2)
    hat = replace(
        words,
        model=replace(
            words.model,
            stages=(replace(WORD, segmenter="unit_mark", pool="last", capacity=0.25),),
        ),
        data=replace(words.data, source="stdlib-words"),
    )
    words_4 = replace(words, model=replace(words.model, stages=(deep,)))
    released = StageConfig(
        segmenter="word_start", max_unit=64, capacity=0.3, width=80, heads=4, window=256,
        encoder_layers=1, pool="latent", unpool="cross", decoder_layers=2,
    )  # fmt: skip
    hat_released = replace(
        words, model=ModelConfig(width=160, layers=3, heads=5, stages=(released,))
    )
    return {"words": words, "words-4": words_4, "hat": hat, "hat-released": hat_released}
