"""Objects that belong to one connection: made when its first call comes, closed when it ends."""

from __future__ import annotations

from typing import Any, Protocol

from distcorpus.wire.daemon import Connection, Daemon


class Closable(Protocol):
    """What can be served to each connection of its own."""

    def close(self) -> None:
        """Called once the connection has ended."""


def serve_each(daemon: Daemon, object_id: str, kind: type[Closable], *arguments: Any) -> None:
    """Serve an object of its own to each connection.

    Parameters
    ----------
    daemon : Daemon
        Made with ``on_disconnect=close_objects``.
    object_id : str
        The id under which they are all served.
    kind : type
        Their class, whose exposed methods are served.
    *arguments
        What the class is called with.
    """
    # A class of its own, since Pyro4 keeps the way to make instances, and the id, on the class.
    served = type(kind.__name__, (kind,), {"_pyroInstancing": ("session", lambda cls: cls(*arguments))})
    daemon.register(served, object_id)


def close_objects(connection: Connection) -> None:
    """Close the objects of a connection that has ended."""
    for served in list(connection.pyroInstances.values()):
        served.close()
    connection.pyroInstances.clear()
