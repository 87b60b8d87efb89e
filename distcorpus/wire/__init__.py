"""The only place that knows Pyro4: serializers, sockets, daemons, the name server.

Importing it configures Pyro4 for the whole process, see `install`.
"""

from distcorpus.wire import names
from distcorpus.wire.allowed import allow
from distcorpus.wire.calls import Written
from distcorpus.wire.daemon import Connection, Daemon, behavior, current_connection
from distcorpus.wire.exposed import expose
from distcorpus.wire.frames import CannotSendError
from distcorpus.wire.memory import share_freed_memory
from distcorpus.wire.nameserver import (
    NameServer,
    NameServerDaemon,
    find,
    list_names,
    lookup,
    register,
    unregister,
)
from distcorpus.wire.proxy import (
    CallTimeout,
    CommunicationError,
    ConnectionClosedError,
    MessageTooLargeError,
    NamingError,
    Proxy,
    PyroError,
    abort,
    close,
    connect,
    is_false_answer,
    location_of,
    remote_traceback,
)
from distcorpus.wire.serializer import install, limit_messages
from distcorpus.wire.slices import SlicedCalls, Slices, message_limit, sliced
from distcorpus.wire.sockets import client_gone, default_bind, is_loopback, raise_file_limit
from distcorpus.wire.tls import Credentials
from distcorpus.wire.tls import use as use_tls

__all__ = [
    "CallTimeout",
    "CannotSendError",
    "CommunicationError",
    "Connection",
    "ConnectionClosedError",
    "Credentials",
    "Daemon",
    "MessageTooLargeError",
    "NameServer",
    "NameServerDaemon",
    "NamingError",
    "Proxy",
    "PyroError",
    "SlicedCalls",
    "Slices",
    "Written",
    "abort",
    "allow",
    "behavior",
    "client_gone",
    "close",
    "connect",
    "current_connection",
    "default_bind",
    "expose",
    "find",
    "install",
    "is_false_answer",
    "is_loopback",
    "limit_messages",
    "list_names",
    "location_of",
    "lookup",
    "message_limit",
    "names",
    "raise_file_limit",
    "register",
    "remote_traceback",
    "share_freed_memory",
    "sliced",
    "unregister",
    "use_tls",
]

install()
