"""Short for people: numbers, times, and the beginnings of texts."""

import codecs


def human(value: float) -> str:
    """A number with a metric prefix, for a unit to follow: 12_345 as "12.3 k"."""
    power = 0
    while abs(value) >= 999.5 and power < 8:
        value /= 1000
        power += 1
    return f"{value:.3g} {' kMGTPEZY'[power].strip()}"


def clock(seconds: float) -> str:
    """Seconds as "1:02:03" or "2:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def beginning(text: bytes, most: int) -> bytes:
    """The first ``most`` bytes, less the beginning of a character that would be cut there."""
    if len(text) <= most:
        return text
    whole = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(text[:most])
    return whole.encode("utf-8", "surrogateescape") or text[:most]
