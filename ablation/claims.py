"""Who does which cell: a claim that its holder renews, and that expires where it is not renewed.
Studies on one machine, on several that share a folder, and on object storage are all the same."""

import os
import time

from octavo import storage
from octavo.locks import Lock


class Claims:
    """Of a study's folder, or its URL."""

    def __init__(self, out: str):
        where = out if storage.is_url(out) else f"file://{os.path.abspath(out)}"
        self._url = f"{where}/claims"
        self._seen: dict[str, tuple[tuple, float]] = {}
        """Of claims of other machines: what they said, and since when they say it."""

    def of(self, name: str) -> Lock:
        """Held while the cell is done; entering it raises ConfigError if another process has it."""
        return Lock(f"{self._url}/{name}")

    def held(self, name: str) -> str | None:
        """Who has a claim on a cell, as far as is known; None: nobody who lives. Never waits."""
        lock = self.of(name)
        found = lock.holder()
        if found is None:
            return None
        told = f"process {found.process} on {found.host} since {found.since}"
        if (gone := lock.gone(found)) is not None:
            return None if gone else told
        says, now = (found.token, found.seen), time.monotonic()
        before = self._seen.get(name)
        if before is None or before[0] != says:
            self._seen[name] = says, now
            return told
        return told if now - before[1] < lock.patience() else None
