"""The errors of this folder."""


class DataError(Exception):
    """Data that cannot be used. The message says which file, what is wrong and what to do."""


class WorkerError(Exception):
    """A helper process ended before its work was done."""

    @classmethod
    def killed(cls, option: str) -> "WorkerError":
        return cls(
            "a worker process was killed, perhaps for lack of memory. Saved work is kept: run the "
            f"same command again, with a smaller {option} if it happens again."
        )
