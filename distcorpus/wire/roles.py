"""Who may do what in a cluster with TLS: a certificate's role, and the one table of what each role may call.

Without TLS nobody has a role, and whoever reaches a port may call what it offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from Pyro4.constants import DAEMON_NAME
from Pyro4.errors import SecurityError

from distcorpus.wire import names

ROLES = NAMESERVER, DISPATCHER, WORKER, CLIENT, VIEWER = (
    "nameserver",
    "dispatcher",
    "worker",
    "client",
    "viewer",
)
#: Whose certificates serve others, at the hosts that they name; the others' only call.
SERVERS = frozenset({NAMESERVER, DISPATCHER, WORKER})

_URI = "urn:distcorpus:role:"
_ANY_OTHER = "*"


@dataclass(frozen=True, slots=True)
class _Served:
    """An object of a cluster: the role of who serves it, and for each method those who may call it."""

    by: str
    callers: Mapping[str, frozenset[str]]


_EVERYONE = frozenset(ROLES)
_CLIENTS = frozenset({CLIENT})
_REGISTRARS = frozenset({DISPATCHER, WORKER})
_OPERATORS = frozenset({CLIENT, DISPATCHER})
_VIEWERS = _OPERATORS | {VIEWER}

_DOOR = _Served(DISPATCHER, {_ANY_OTHER: _CLIENTS})
_WORKER = _Served(WORKER, {_ANY_OTHER: frozenset({DISPATCHER})})
_OBJECTS = {
    names.NAME_SERVER: _Served(
        NAMESERVER,
        {
            **dict.fromkeys(("ping", "count", "lookup", "list"), _EVERYONE),
            # Each only for the names of its own role, see `check_name`.
            **dict.fromkeys(("register", "remove", "set_metadata"), _REGISTRARS),
        },
    ),
    names.DISPATCHER: _Served(
        DISPATCHER,
        {
            **dict.fromkeys(
                ("ping", "status", "snapshot", "details", "records", "recorded_sessions"), _VIEWERS
            ),
            "exit": _OPERATORS,
            "worker_leaves": frozenset({WORKER}),
        },
    ),
    names.LSI_DISPATCHER: _DOOR,
    names.LDA_DISPATCHER: _DOOR,
    names.LSI_MODELS: _DOOR,
    names.LDA_MODELS: _DOOR,
}
#: What every daemon offers besides its objects: their methods' names.
_DESCRIPTION = {"ping": _EVERYONE, "get_metadata": _EVERYONE}


def uri(role: str) -> str:
    """The URI that stands for a role in a certificate's subject alternative names."""
    return _URI + role


def role_in(certificate: Mapping[str, Any] | None) -> str | None:
    """The one role that a verified certificate gives (as ``getpeercert()`` returns it), or None."""
    found = [
        value.removeprefix(_URI)
        for kind, value in (certificate or {}).get("subjectAltName", ())
        if kind == "URI" and value.startswith(_URI)
    ]
    return found[0] if len(found) == 1 and found[0] in ROLES else None


def server_of(object_id: str) -> str | None:
    """The role of who serves an object, or registers it under that name; None for what no cluster has."""
    served = _served(object_id)
    return None if served is None else served.by


def check_call(role: str, object_id: str, method: str) -> None:
    """Refuse a call that the caller's role does not allow.

    Raises
    ------
    SecurityError
        The table does not list `role` for that method.
    """
    served = _served(object_id)
    callers = _DESCRIPTION if object_id == DAEMON_NAME else served.callers if served is not None else {}
    allowed = callers.get(method) or callers.get(_ANY_OTHER) or frozenset()
    if role not in allowed:
        who = " or ".join(sorted(allowed)) or "nobody"
        raise SecurityError(
            f"refused {object_id[:100]}.{method[:100]}: {who} may call that, "
            f"and this certificate's role is {role}"
        )


def check_name(role: str, name: str) -> None:
    """Refuse to register or remove a name that the caller's role does not serve.

    Raises
    ------
    SecurityError
        `name` is another role's, or no cluster has such a name.
    """
    if role != server_of(name):
        raise SecurityError(
            f"refused {name[:100]}: {server_of(name) or 'nobody'} may have that name, "
            f"and this certificate's role is {role}"
        )


def _served(object_id: str) -> _Served | None:
    return _WORKER if object_id.startswith(names.WORKER_PREFIX) else _OBJECTS.get(object_id)
