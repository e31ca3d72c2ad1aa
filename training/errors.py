"""The errors of this folder. Apart, so that the command line need not wait for JAX."""


class HostsError(Exception):
    """The hosts of a run did not find each other. The message says which and what to do."""


class DeviceError(Exception):
    """A chip does not compute what it should. The message says which and what to do."""
