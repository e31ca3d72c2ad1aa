"""The honest round trip: what a score promises is the size of a file that gives the text back."""

import dataclasses

import jax
import numpy as np
import pytest

from helpers import opened, random_text, run, words
from octavo.run import codec


def test_round_trip(preset):
    """For every preset: the same bytes, and the size that the score says, within a hundredth."""
    it = opened(preset)
    text = random_text(0, 3 * it.length // 2) + b"\x02\x03\x10\x17\xff\x00"
    packed = it.compress(text)
    assert it.decompress(packed) == text
    promised = it.score(text)
    size = promised.bits_per_byte * promised.bytes / 8
    # The coder writes whole words of four bytes.
    assert abs(len(packed) - codec.HEADER - size) <= 0.01 * size + 4


@pytest.fixture(scope="module")
def tiny_run(tiny):
    return codec.Predictor(opened(tiny))


def test_edges(tiny_run):
    for text in (b"", b"x", words(0, 3 * 64)):
        assert codec.decompress(tiny_run, codec.compress(tiny_run, text)) == text


def test_files_that_cannot_be_decompressed(tiny, tiny_run):
    packed = codec.compress(tiny_run, b"some text")
    for bad in (b"", b"PK34", packed[:-1], b"X" + packed[1:]):
        with pytest.raises(codec.CodecError, match="not made by compress.py"):
            codec.decompress(tiny_run, bad)
    params = jax.tree.map(lambda x: x + 1, tiny_run.run.params)
    other = codec.Predictor(dataclasses.replace(tiny_run.run, params=params))
    with pytest.raises(codec.CodecError, match="another checkpoint"):
        codec.decompress(other, packed)
    damaged = bytearray(packed)
    damaged[codec.HEADER + 3] ^= 0x40  # a high bit of the first word: the last ones may be unused
    with pytest.raises(codec.CodecError, match="its checksum|length do not agree"):
        codec.decompress(tiny_run, bytes(damaged))
    for at in (codec.HEADER - 4, codec.HEADER - 1):  # far too many ids, or a few more
        damaged = bytearray(packed)
        damaged[at] += 1
        with pytest.raises(codec.CodecError, match="length do not agree"):
            codec.decompress(tiny_run, bytes(damaged))


def test_every_bit_of_a_file_counts(tiny_run):
    """One bit flipped, bytes appended, or another end: none of it goes unnoticed."""
    text = words(3, 60)
    packed = codec.compress(tiny_run, text)
    changed = [packed + more for more in (b"\0" * 4, b"\0" * 16, packed)] + [packed[:-4]]
    for at in (*range(16), *range(len(packed) - 8, len(packed))):
        for bit in (0, 7):
            flipped = bytearray(packed)
            flipped[at] ^= 1 << bit
            changed.append(bytes(flipped))
    rng = np.random.default_rng(0)
    changed += [packed[: codec.HEADER] + rng.bytes(4 * n) for n in range(9)]
    for other in changed:
        with pytest.raises(codec.CodecError):
            codec.decompress(tiny_run, other)
    assert codec.decompress(tiny_run, packed) == text


def test_model_without_probabilities(tiny_run):
    params = jax.tree.map(lambda x: x * np.nan, tiny_run.run.params)
    broken = codec.Predictor(dataclasses.replace(tiny_run.run, params=params))
    with pytest.raises(codec.CodecError, match="no probabilities"):
        codec.compress(broken, b"x")


@pytest.mark.xdist_group("trained")
def test_from_the_command_line(trained, tmp_path):
    text = words(5, 300)
    (tmp_path / "text").write_bytes(text)
    packed, back = str(tmp_path / "packed"), str(tmp_path / "back")
    done = run("compress.py", str(trained[0]), str(tmp_path / "text"), packed)
    assert done.returncode == 0 and "bits per byte" in done.stdout, done.stderr
    done = run("compress.py", "--decompress", str(trained[0]), packed, back)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == text
    for arguments, message in (
        ((str(tmp_path / "none"), packed), "none cannot be read"),
        ((packed, str(tmp_path / "no" / "out")), "there is no folder"),
    ):
        done = run("compress.py", str(trained[0]), *arguments)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    done = run("compress.py", "--decompress", str(trained[0]), str(tmp_path / "text"), back)
    assert done.returncode == 2 and "not made by compress.py" in done.stderr
    assert np.frombuffer((tmp_path / "back").read_bytes(), np.uint8).size == len(text)
