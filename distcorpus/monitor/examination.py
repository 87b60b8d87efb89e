"""The doctor's eyes: what there is on this machine, and a cluster step by step, from its name to its
workers.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from distcorpus._machine import cpu_quota, memory_limit, physical_memory, usable_cores
from distcorpus._version import __version__
from distcorpus.monitor import text
from distcorpus.monitor.doctor import NEEDED, USEFUL, Check, Machine, check_certificate, check_snapshot
from distcorpus.monitor.snapshot import Snapshot, from_message
from distcorpus.wire import CommunicationError, NamingError, PyroError, close, connect, names, roles, tls
from distcorpus.wire.location import default_nameserver
from distcorpus.wire.nameserver import find, find_by_broadcast, lookup
from distcorpus.wire.sockets import format_address, is_loopback, parse_address

#: Seconds that each step may take.
TIMEOUT = 5.0


def this_machine(spool: str = "", **kernels: Any) -> Machine:
    """Return what there is here.

    Parameters
    ----------
    spool : str
        The folder that a dispatcher is to spool to.
    **kernels
        ``kernels_folder`` and ``kernels_compiled`` of `Machine`.
    """
    import scipy.linalg.blas  # noqa: F401, which brings a BLAS of its own
    import threadpoolctl

    blas = {
        (" ".join(filter(None, (info["internal_api"], info.get("version")))), int(info["num_threads"]))
        for info in threadpoolctl.threadpool_info()
        if info["user_api"] == "blas"
    }
    return Machine(
        python=sys.version_info[:3],
        packages={name: _version(name) for name in (*NEEDED, *USEFUL)},
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        quota=cpu_quota(),
        memory=physical_memory(),
        memory_limit=memory_limit(),
        blas=tuple(sorted(blas)),
        files=resource.getrlimit(resource.RLIMIT_NOFILE),
        spool=spool,
        spool_free=free_space(spool) if spool else None,
        environment=dict(os.environ),
        own_kernels=tuple(_missing_modules(os.environ.get("DISTCORPUS_KERNELS", ""))),
        **kernels,
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _missing_modules(names: str) -> Iterator[str]:
    """Yield which modules, with commas between them, are not there; none is run."""
    for name in filter(None, map(str.strip, names.split(","))):
        try:
            found = find_spec(name)
        except (ImportError, ValueError) as error:
            yield f"{name}, which cannot be imported: {error}"
        else:
            if found is None:
                yield f"{name}, which is not there"


def free_space(folder: str) -> int | None:
    """Return the free bytes of a folder's disk; None where no file can be written there.

    Of a folder that is not there yet, the one in which it would be made counts.
    """
    while not os.path.exists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder) or "."
    try:
        tempfile.TemporaryFile(dir=folder).close()
        status = os.statvfs(folder)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


class _Stop(Exception):
    """What is wrong stands in the way of all further steps."""


def examine(
    host: str | None, port: int | None, *, broadcast: bool = True, asked_for: bool = True
) -> Iterator[Check]:
    """Yield what is to be said of a cluster, step by step, up to what stands in the way of all further steps.

    Parameters
    ----------
    host, port : str, int or None
        Of its name server; None for what the environment says, and then for who answers a broadcast.
    broadcast : bool
        Whether to ask the network too.
    asked_for : bool
        Whether somebody said that there is one: else it is no failure that there is none.
    """
    try:
        yield from _certificate()
        found = yield from _name_server(host, port, broadcast, asked_for)
        if found is not None:
            yield from _dispatcher(*found)
    except _Stop as stop:
        yield from stop.args


def _certificate() -> Iterator[Check]:
    credentials = tls.current()
    if credentials is None:
        yield Check(
            "this process's certificate", "ok", f"none, so no TLS ({tls.VARIABLE} and --tls name one)"
        )
        return
    try:
        role, expires = credentials.role, credentials.expires
    except ValueError as error:
        raise _Stop(Check("this process's certificate", "fail", str(error), "see docs/tls.md")) from None
    yield check_certificate("this process's certificate", expires, time.time())
    may_look = (roles.CLIENT, roles.VIEWER, roles.DISPATCHER)
    if role not in may_look:
        remedy = (
            "give this command a certificate of the role viewer: 'distcorpus certs issue DIR --role viewer'"
        )
        raise _Stop(Check("role", "fail", f"{credentials.folder} is a {role}'s, who may not look", remedy))
    yield Check("role", "ok", f"{role} ({credentials.folder})")


def _name_server(host: str | None, port: int | None, broadcast: bool, asked_for: bool) -> Any:
    by_default = default_nameserver()
    where, number = host or by_default[0], port or by_default[1]
    answers = find_by_broadcast() if broadcast else None
    checks = list(_reach("name server", where, number))
    if checks[-1].state == "fail" and host is None and answers is not None:
        where, number = answers
        yield Check("name server", "ok", f"none at {checks[-1].said}; one answers a broadcast")
        checks = list(_reach("name server", where, number))
    if checks[-1].state == "fail" and not asked_for:
        said = f"no cluster: {checks[-1].said}"
        yield Check("cluster", "warn", said, "start 'distcorpus nameserver', or say where one is with --host")
        return None
    yield from checks[:-1]
    if checks[-1].state == "fail":
        raise _Stop(checks[-1])
    yield checks[-1]
    if answers is not None and not _same(answers, (where, number)):
        said = f"another name server, at {format_address(*answers)}, answers broadcasts"
        remedy = (
            "gensim's own classes take that one: set PYRO_BROADCAST_ADDRS=127.0.0.1, or end it, or start it "
            "with --no-broadcast"
        )
        yield Check("broadcasts", "warn", said, remedy)
    try:
        nameserver = find(where, number, broadcast=False)
        began = time.perf_counter()
        nameserver.ping()
        took = time.perf_counter() - began
    except (NamingError, PyroError) as error:
        remedy = (
            "see docs/tls.md, 'When something is refused'" if "TLS" in str(error) else "see what runs there"
        )
        raise _Stop(Check("name server", "fail", str(error), remedy)) from None
    yield Check("name server", "ok", f"answers in {text.duration(took)}")
    return nameserver, where


def _same(one: tuple[str, int], other: tuple[str, int]) -> bool:
    if one[1] != other[1]:
        return False
    if is_loopback(other[0]):  # this machine, which has other addresses too
        return is_loopback(one[0]) or one[0] in _addresses(socket.gethostname())
    return bool(_addresses(one[0]) & _addresses(other[0]))


def _addresses(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def _reach(what: str, host: str, port: int) -> Iterator[Check]:
    """Yield whether a name is known, something listens, and TLS can be spoken with it."""
    place = format_address(host, port)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        remedy = f"is {host!r} spelt rightly? add it to DNS or /etc/hosts, or use an address"
        yield Check(what, "fail", f"{place}: the name is not known ({error})", remedy)
        return
    began = time.perf_counter()
    try:
        sock = socket.create_connection((host, port), TIMEOUT)
    except ConnectionRefusedError:
        remedy = f"start the {what} there, on all its addresses (--bind 0.0.0.0); or another --port"
        yield Check(what, "fail", f"{place}: nothing listens (connection refused)", remedy)
        return
    except OSError as error:
        remedy = (
            "a firewall, a network that is down, or an address that leads nowhere from here: nc -vz tells"
        )
        yield Check(what, "fail", f"{place}: cannot be reached ({error})", remedy)
        return
    took = time.perf_counter() - began
    with sock:
        yield Check(what, "ok", f"{place} takes connections, in {text.duration(took)}")
        credentials = tls.current()
        if credentials is not None:
            yield from _speak_tls(what, credentials, sock, host)


def _speak_tls(what: str, credentials: tls.Credentials, sock: socket.socket, host: str) -> Iterator[Check]:
    try:
        secured = credentials.client_context().wrap_socket(sock, server_hostname=host)
        certificate = secured.getpeercert()
    except OSError as error:
        yield Check("TLS", "fail", f"the {what}: {error}", "see docs/tls.md, 'When something is refused'")
        return
    wanted = roles.NAMESERVER if what == "name server" else roles.DISPATCHER
    role = roles.role_in(certificate)
    if role != wanted:
        remedy = (
            f"issue it a certificate of its own: 'distcorpus certs issue DIR --role {wanted} --host {host}'"
        )
        yield Check("TLS", "fail", f"the {what} shows a certificate of role {role or 'none'}", remedy)
        return
    expires = tls.expiry_of(certificate)
    yield check_certificate(f"the {what}'s certificate", expires, time.time())


def _dispatcher(nameserver: Any, host: str) -> Iterator[Check]:
    uri = lookup(nameserver, names.DISPATCHER)
    if uri is None:
        remedy = (
            "start 'distcorpus dispatcher'; if one runs, it found another name server: see its first lines"
        )
        raise _Stop(Check("dispatcher", "fail", "the name server knows none", remedy))
    there, port = parse_address(uri.rpartition("@")[2])
    checks = list(_reach("dispatcher", there, port))
    if checks[-1].state == "fail":
        remedy = checks[-1].remedy
        if is_loopback(there) and not is_loopback(host):
            remedy = "it listens on its own machine only: start it with --bind 0.0.0.0 (or --advertise HOST)"
        raise _Stop(*checks[:-1], Check("dispatcher", "fail", checks[-1].said, remedy))
    yield from checks
    try:
        proxy = connect(uri, timeout=2 * TIMEOUT, connect_timeout=TIMEOUT)
    except CommunicationError as error:
        raise _Stop(Check("dispatcher", "fail", str(error), "see its log")) from None
    try:
        asked, began = time.time(), time.perf_counter()
        message = proxy.snapshot(None)
        took = time.perf_counter() - began
        snapshot = from_message(Snapshot, message)
    except (AttributeError, ValueError) as error:
        remedy = "install the same version of distcorpus everywhere"
        said = f"it does not tell of itself as version {__version__} does: {error}"
        raise _Stop(Check("version", "fail", said, remedy)) from None
    except PyroError as error:
        raise _Stop(Check("dispatcher", "fail", str(error), "see its log")) from None
    finally:
        close(proxy)
    yield Check("dispatcher", "ok", f"tells of itself in {text.duration(took)}")
    yield from check_snapshot(snapshot, __version__, asked, took)
