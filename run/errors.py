"""The errors of this folder. Apart, so that the command line need not wait for JAX."""


class CheckpointError(Exception):
    """A checkpoint could not be written or read. The message says which and what to do."""


class StorageError(CheckpointError):
    """The storage, or the machine, failed for now: nothing on it is wrong, and nothing was changed.
    When it is mended, the same command goes on."""


class CodecError(Exception):
    """A file that cannot be decompressed. The message says why."""
