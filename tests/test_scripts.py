"""Writing systems of bytes, on the host and in the model, and rates that treat them alike."""

import os
import unicodedata

import jax.numpy as jnp
import numpy as np
import pytest

from helpers import random_text, run
from octavo.configs.checks import ConfigError
from octavo.evaluation.parallel import read_parallel
from octavo.evaluation.rates import fair_rates, written_in
from octavo.tokenizers.unicode import scripts

SAMPLES = {
    "latin": "Alle Menschen", "greek": "Όλοι οι άνθρωποι", "cyrillic": "Все люди",
    "hebrew": "כל בני אדם", "arabic": "يولد جميع الناس", "devanagari": "सभी मनुष्यों",
    "khmer": "មនុស្ស", "tibetan": "འགྲོ་བ་", "han": "人人生而自由", "hiragana": "すべての",
    "hangul": "모든 인간은", "ethiopic": "የሰው", "gothic": "𐌰𐌱", "other": "12 + 3 = 15!",
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_main_script(name):
    assert scripts.main_script(SAMPLES[name].encode()) == name


def test_newest_script_at_each_byte():
    """Known once a character is complete; what has no script of its own goes with what precedes."""
    found = [scripts.names()[i] for i in scripts.scripts_of("1 a\u044f 2\u65e5".encode())]
    assert found == ["other"] * 2 + ["latin"] * 2 + ["cyrillic"] * 3 + ["cyrillic"] * 2 + ["han"]
    cut = "\u65e5".encode()[:2] + b"a" + b"\x97\xa5"
    assert [scripts.names()[i] for i in scripts.scripts_of(cut)] == ["other"] * 2 + ["latin"] * 3


def test_every_character():
    """The decoder of UTF-8 agrees with Python's, over all planes; JAX agrees with NumPy."""
    first, values = scripts.pages()
    points = np.r_[np.arange(0, 0x3000, 7), np.arange(0x3000, 0xD800, 97), 0xFFFD, 0x10348, 0x20000]
    for point in points:
        text = chr(point).encode()
        assert scripts.scripts_of(text)[-1] == values[first[point // 128], point % 128], point
    assert scripts.names()[values[first[ord("é") // 128], ord("é") % 128]] == "latin"
    assert unicodedata.name(chr(0x10348)).startswith("GOTHIC")
    data = np.frombuffer(random_text(0, 300), np.uint8).astype(np.int32)
    before = [np.concatenate([np.full(i, -1), data[:-i]]) for i in (1, 2, 3)]
    host = scripts.script_of_character(data, before, values, first)
    device = scripts.script_of_character(
        jnp.asarray(data), [jnp.asarray(x) for x in before], jnp.asarray(values), jnp.asarray(first)
    )
    np.testing.assert_array_equal(host, device)


@pytest.fixture
def parallel(tmp_path):
    """Sentences that say the same in languages of one, two and three bytes a letter."""
    for name, start in (("eng", ord("a")), ("rus", 0x430), ("khm", 0x1780)):
        lines = []
        for line in range(12):
            word = np.random.default_rng(line).integers(0, 20, 30)
            text = "".join(chr(start + letter) for letter in word)
            lines.append("" if (name, line) == ("rus", 3) else text)
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_fair_rates(parallel):
    texts = read_parallel(parallel)
    assert [len(lines) for lines in texts.values()] == [11] * 3  # one lacks a translation
    assert written_in(texts) == ("cyrillic", "khmer", "latin")
    found = dict(zip(("other", "cyrillic", "khmer", "latin"), fair_rates(
        texts, written_in(texts), "eng", 0.3), strict=True))  # fmt: skip
    assert found["latin"] == pytest.approx(0.3, rel=0.05)
    assert found["cyrillic"] == pytest.approx(0.15, rel=0.05)
    assert found["khmer"] == pytest.approx(0.1, rel=0.05)
    done = run("rates.py", str(parallel), "--rate", "0.3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("--model.stages.0.scripts cyrillic khmer latin --model.stages.0")


def test_text_that_is_not_parallel(parallel, tmp_path_factory):
    with pytest.raises(ConfigError, match="no language 'fra'; there are eng, khm, rus"):
        fair_rates(read_parallel(parallel), ("latin",), "fra", 0.2)
    (parallel / "rus.txt").write_text("1\n2\n")
    with pytest.raises(ConfigError, match="not parallel, their lines differ.*'rus': 2"):
        read_parallel(parallel)
    with pytest.raises(ConfigError, match="two or more languages"):
        read_parallel(tmp_path_factory.mktemp("empty"))
    with pytest.raises(ConfigError, match="two or more languages"):
        read_parallel(parallel / "eng.txt")
    (parallel / "rus.txt").write_bytes(b"caf\xe9\n" * 12)
    with pytest.raises(ConfigError, match="rus.txt is not UTF-8 text: byte 3 is 0xe9"):
        read_parallel(parallel)
    (parallel / "rus.txt").unlink()
    os.mkfifo(parallel / "rus.txt")
    with pytest.raises(ConfigError, match="rus.txt is no file"):
        read_parallel(parallel)


def test_lines_end_as_they_may(parallel):
    before = read_parallel(parallel)
    text = (parallel / "eng.txt").read_bytes()
    (parallel / "eng.txt").write_bytes(text.replace(b"\n", b"\r\n"))
    assert read_parallel(parallel) == before


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        (("klingon",), "no script 'klingon'. The text has cyrillic, khmer, latin."),
        (("cyrilic",), "no script 'cyrilic'. Did you mean cyrillic?"),
        (("latin+",), "no script ''"),
        (("other",), "no script 'other'"),
        (("latin", "khmer+latin"), "script latin is asked for 2 times"),
    ],
)
def test_scripts_that_are_none(parallel, routes, said):
    with pytest.raises(ConfigError) as raised:
        fair_rates(read_parallel(parallel), routes, "eng", 0.2)
    assert said in str(raised.value)
