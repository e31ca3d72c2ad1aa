"""StochasTok (Sims et al. 2025, 2506.01687): BPE whose tokens are split in two at random in
training text, so that a model sees how tokens are spelled; held-out text is encoded whole."""

from octavo.tokenizers.bpe import BPETokenizer


class StochasTokenizer(BPETokenizer):
    """BPE with the stream transform of ``parts/split_again.py``."""

    scheme = "stochastok"
    usage = {"stochastok:SIZE": "BPE whose tokens are split at random in training text"}
    splitting_again = 0.1

    @property
    def name(self) -> str:
        return f"{self.scheme}-{self.vocab_size}"
