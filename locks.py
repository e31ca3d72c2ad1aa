"""Who alone works on a run, or on a part of a study: locks below a URL, of object storage or of
folders, that their holders renew."""

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path

from octavo import files, process, storage
from octavo.configs.checks import ConfigError


@dataclasses.dataclass
class Holder:
    """What the object of a lock says."""

    host: str
    process: int
    since: str
    command: list[str]
    token: str
    seen: float
    """Seconds since 1970 by the holder's clock when it was last renewed."""


class InUse(ConfigError):
    """Somebody else owns it, who lives."""


class Lock:
    """Who holds it alone writes below a URL: an object that its holder renews.

    A holder that was killed renews it no more: who comes next on the same machine sees that its
    process is gone; on another, waits for ``PATIENCE`` of its beats. Raises ConfigError with the
    holder's name if there is one that lives.
    """

    BEAT_SECONDS = 10.0
    PATIENCE = 4

    def __init__(self, url: str):
        self.url = url
        since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        token = uuid.uuid4().hex
        self.mine = Holder(socket.gethostname(), os.getpid(), since, sys.argv, token, time.time())
        self._over = threading.Event()
        self.lost: str | None = None
        """Who took it over, if somebody did."""

    def __enter__(self) -> "Lock":
        self._take()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()
        if self.lost is None:
            with contextlib.suppress(OSError):  # who comes next waits a little
                storage.remove(self.url)

    def _take(self) -> None:
        for _ in range(100):
            if self._create():
                return
            if (found := self.holder()) is None:
                continue  # it was given back just now
            if not self._dead(found):
                raise in_use(self.url.rpartition("/")[0], _told(found))
            process.warn(f"{self.url}: taken over; {_told(found)}, but that is gone.")
            if (now := self.holder()) is not None and now.token == found.token:
                storage.remove(self.url)
        raise InUse(f"{self.url} cannot be taken: others take it at the same time.")

    def _create(self) -> bool:
        """False: there is one. Stores that can, decide between two who come at once."""
        with contextlib.suppress(FileExistsError), storage.at(self.url):
            fs, path = storage.opened(self.url)
            if not fs.async_impl:
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            if "file" in fs.protocol:  # fsspec would look first, and then write
                files.create(path, self._text())
                return True
            try:
                fs.pipe_file(path, self._text(), mode="create")
            except FileExistsError:
                raise
            except Exception:  # not every store, nor every library, knows of it
                if fs.exists(path):
                    return False
                fs.pipe_file(path, self._text())
                process.warn(
                    f"{self.url}: this storage cannot decide between two who come at once; see to "
                    "it that no other training begins there."
                )
            return True
        return False

    def _text(self) -> bytes:
        return files.json_text(dataclasses.asdict(self.mine)).encode()

    def holder(self) -> Holder | None:
        """Who holds it by what it says, alive or not. Raises OSError."""
        try:
            return Holder(**json.loads(storage.read(self.url)))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return Holder("another machine", 0, "some time", [], "", 0.0)

    @classmethod
    def patience(cls) -> float:
        """Seconds within which a holder that lives has renewed the lock."""
        return cls.PATIENCE * cls.BEAT_SECONDS

    @classmethod
    def gone(cls, found: Holder) -> bool | None:
        """Whether the holder is gone; None: of another machine, which shows only by waiting."""
        if found.host != socket.gethostname():
            return None
        # The same clock, and processes that can be seen.
        return time.time() - found.seen > cls.patience() or not process.alive(found.process)

    def _dead(self, found: Holder) -> bool:
        """Whether the holder is gone; waits, on another machine, until it has renewed the lock, or
        should have."""
        if (gone := self.gone(found)) is not None:
            return gone
        patience = self.patience()
        process.warn(
            f"{self.url}: {_told(found)}; waiting {patience:g} seconds to see whether it is still "
            "alive."
        )
        until = time.monotonic() + patience
        while time.monotonic() < until:
            time.sleep(min(1.0, self.BEAT_SECONDS))
            now = self.holder()
            if now is None:
                return True
            if (now.token, now.seen) != (found.token, found.seen):
                return False
        return True

    def _renew(self) -> None:
        while not self._over.wait(self.BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the next beat may come through
                now = self.holder()
                if now is None or now.token != self.mine.token:
                    self.lost = "nobody" if now is None else _told(now)
                    return
                self.mine.seen = time.time()
                storage.write(self.url, self._text())

    def check(self) -> None:
        """Raise OSError if somebody else took it over: this process was taken for dead."""
        found = self.holder()
        if found is None or found.token != self.mine.token:
            self.lost = self.lost or ("nobody" if found is None else _told(found))
            raise OSError(
                errno.EBUSY, f"the lock is not this process's any more ({self.lost})", self.url
            )


def _told(holder: Holder) -> str:
    return told(holder.process, holder.host, holder.since)


def told(number: int, host: str, since: str) -> str:
    """Who holds a run."""
    return f"process {number} on {host} trains there since {since}"


def in_use(place: str | Path, holder: str) -> InUse:
    """The refusal of a run that somebody else owns."""
    return InUse(
        f"{place} is in use: {holder}. One training owns a run at a time: stop that one, or choose "
        "another --workdir."
    )
