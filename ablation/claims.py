"""Who does which cell: a claim that its holder renews, and that expires where it is not renewed.
Studies on one machine, on several that share a folder, and on object storage are all the same."""

import os
import socket
import time

from octavo import process, storage
from octavo.storage import Lock


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
        patience = Lock.PATIENCE * Lock.BEAT_SECONDS
        if found.host == socket.gethostname():
            gone = time.time() - found.seen > patience or not process.alive(found.process)
            return None if gone else told
        says, now = (found.token, found.seen), time.monotonic()
        before = self._seen.get(name)
        if before is None or before[0] != says:
            self._seen[name] = says, now
            return told
        return told if now - before[1] < patience else None
