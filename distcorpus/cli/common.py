"""What several commands share: groups of options, and what they do with them."""

from __future__ import annotations

import argparse
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, TypeAlias

from distcorpus.cli.service import Lifetime, say
from distcorpus.cli.signals import Interrupted
from distcorpus.wire import (
    CommunicationError,
    Connection,
    Daemon,
    addressfile,
    connect,
    names,
    tls,
)
from distcorpus.wire.daemon import check_exposure
from distcorpus.wire.location import NameServerLocation
from distcorpus.wire.nameserver import lookup
from distcorpus.wire.sockets import is_loopback

logger = logging.getLogger("distcorpus")


class Parser(argparse.ArgumentParser):
    """A parser, and by it of every command, that takes no option's beginning for the option.

    What it does not know it refuses by itself, where argparse leaves that to the parser of all commands.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Read arguments; none is left over."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            meant = "".join(map(self._meant, unknown))
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found, unknown

    def _meant(self, said: str) -> str:
        """Ask whether an unknown option is a known one misspelt."""
        options = [
            option
            for option, action in self._option_string_actions.items()
            if option.startswith("--") and action.help != argparse.SUPPRESS
        ]
        near = get_close_matches(said.partition("=")[0], options, 1) if said.startswith("--") else []
        return f"; did you mean {near[0]}?" if near else ""


#: What the commands are added to.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def verbose_options() -> Parser:
    """Make the option that says how much is logged."""
    options = Parser(add_help=False)
    options.add_argument(
        "-v", "--verbose", action="store_true", help="log what happens, not only what is wrong"
    )
    return options


def default_tls() -> str | None:
    """Return the folder with the certificate that the environment names."""
    return os.environ.get(tls.VARIABLE) or None


def secure_options() -> Parser:
    """Make the option that names the certificate."""
    options = Parser(add_help=False)
    options.add_argument(
        "--tls",
        default=default_tls(),
        metavar="DIR",
        help=f"use TLS, with the certificate in this folder of 'certs issue' (default: {tls.VARIABLE})",
    )
    return options


def find_options() -> Parser:
    """Make the options that say where the name server is."""
    options = Parser(add_help=False)
    options.add_argument(
        "--host", help="the name server's host (default: PYRO_NS_HOST, else this machine, else by broadcast)"
    )
    options.add_argument(
        "--port", type=port, help="the name server's port (default: PYRO_NS_PORT, else 9090)"
    )
    options.add_argument(
        "--no-broadcast",
        dest="broadcast",
        action="store_false",
        help="do not look for the name server by broadcast",
    )
    options.add_argument(
        "--address-file",
        metavar="PATH",
        help="the file to which 'nameserver --address-file' writes its address; replaces --host and --port "
        f"(default: {addressfile.VARIABLE})",
    )
    return options


def serve_options() -> Parser:
    """Make the options of whatever listens."""
    options = Parser(add_help=False)
    options.add_argument(
        "--bind",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: %(default)s; 0.0.0.0: all addresses of this host)",
    )
    options.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond this machine without TLS: whoever reaches the port can use and stop the cluster",
    )
    options.add_argument(
        "--advertise",
        metavar="HOST[:PORT]",
        help="address at which others reach this daemon, if it is not the one it listens on (NAT)",
    )
    options.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="accept objects of a class of your own, such as an id2word; may be given several times",
    )
    options.add_argument(
        "--max-message",
        type=positive,
        metavar="MB",
        help="the largest message that this daemon sends or accepts, at most 2047 (default: "
        "PYRO_MAX_MESSAGE_SIZE, which is in bytes, else 1024)",
    )
    # Between LocalCluster and its processes.
    options.add_argument("--until-eof", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--report-fd", type=int, help=argparse.SUPPRESS)
    return options


def wait_options() -> Parser:
    """Make the option that says how long a daemon waits for the name server."""
    options = Parser(add_help=False)
    options.add_argument(
        "--wait",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long to look for a name server, or 'forever' (default: %(default)g)",
    )
    return options


def port(said: str) -> int:
    """Read a port's number."""
    return _whole(said, 0, 65535, "a port, from 0 to 65535")


def count(said: str) -> int:
    """Read a whole number, 0 or more."""
    return _whole(said, 0, math.inf, "a whole number, 0 or more")


def positive_count(said: str) -> int:
    """Read a whole number above 0."""
    return _whole(said, 1, math.inf, "a whole number above 0")


def positive(said: str) -> float:
    """Read a finite number above 0."""
    number = _real(said)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{said!r}: give a number above 0")
    return number


def amount(said: str) -> float:
    """Read a finite number, 0 or more."""
    number = _real(said)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{said!r}: give a number, 0 or more")
    return number


def seconds(said: str) -> float:
    """Read how long to wait: a number of seconds, 0 or more, or ``forever``."""
    number = math.inf if said == "forever" else _real(said)
    if not number >= 0 or (math.isinf(number) and said != "forever"):
        raise argparse.ArgumentTypeError(f"{said!r}: give a number of seconds, 0 or more, or 'forever'")
    return number


def _whole(said: str, least: int, most: float, wanted: str) -> int:
    try:
        number = int(said)
    except ValueError:
        number = -1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{said!r}: give {wanted}")
    return number


def _real(said: str) -> float:
    try:
        return float(said)
    except ValueError:
        return math.nan


@contextmanager
def reading(option: str, path: str) -> Iterator[None]:
    """Name the option of a file that cannot be read."""
    try:
        yield
    except UnicodeDecodeError:
        raise ValueError(f"{option} {path} is no text in UTF-8") from None
    except OSError as error:
        raise ValueError(f"{option} {path}: {error.strerror or error}") from None


def check_output(option: str, path: str) -> None:
    """Refuse a file that could not be written, before the work begins whose result it is for.

    Raises
    ------
    OSError
        It names the option.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(folder, os.W_OK):
        raise FileNotFoundError(f"{option} {path}: there is no folder {folder} that can be written to")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{option} {path} is a folder: give the name of a file")


def use_credentials(options: argparse.Namespace, role: str | None = None) -> tls.Credentials | None:
    """Let this process use the certificate that ``--tls`` names, if any; a daemon's has to have its role."""
    tls.use(options.tls)
    credentials = tls.current()
    if credentials is not None:
        credentials.check_role(role or credentials.role)
    elif role is not None:
        check_exposure(options.bind, options.insecure)
    return credentials


def with_tls(credentials: tls.Credentials | None) -> str:
    """Say that a daemon speaks TLS, if it does."""
    if credentials is None:
        return ""
    return f", TLS with a certificate until {time.strftime('%Y-%m-%d', time.localtime(credentials.expires))}"


def make_daemon(
    options: argparse.Namespace,
    credentials: tls.Credentials | None,
    nameserver: NameServerLocation,
    on_disconnect: Callable[[Connection], None] | None = None,
) -> Daemon:
    """Return the daemon that the options describe, at an address that others can reach."""
    advertise = options.advertise
    if advertise is None and options.bind in ("0.0.0.0", "::"):
        own = nameserver.own_address()
        # On the name server's own host that is loopback, where nobody else looks: the daemon knows better.
        if not is_loopback(own):
            advertise = credentials.name_for(own) if credentials is not None else own
    return Daemon(
        options.bind,
        options.bind_port,
        advertise,
        on_disconnect,
        credentials=credentials,
        insecure=options.insecure,
    )


def find_nameserver(
    options: argparse.Namespace, lifetime: Lifetime | None = None, timeout: float | None = None
) -> NameServerLocation:
    """Return where the name server is; a daemon, which has a lifetime, waits until it is there.

    Its answers may take `timeout` seconds each, by default as many as `wire.find` gives them.

    Raises
    ------
    NamingError
        If it does not appear in the time that the options give it.
    Interrupted
        If the daemon was told to end while it waited.
    """
    if options.address_file and (options.host or options.port):
        raise ValueError("--address-file says where the name server is: leave out --host and --port")
    # A daemon that only this machine reaches has no use for one that answers from elsewhere.
    alone = lifetime is not None and tls.current() is None and is_loopback(options.bind)
    location = NameServerLocation(
        options.host,
        options.port,
        broadcast=options.broadcast and not alone,
        address_file=options.address_file,
        timeout=timeout,
    )
    if lifetime is not None:

        def say_so(where: str) -> None:
            long = "" if math.isinf(options.wait) else f", for {options.wait:g} s (--wait)"
            say(f"distcorpus {options.command}: waiting for the name server{long}: tried {where}")

        def locate() -> None:
            try:
                found.set_result(location.locate(options.wait, lifetime.ended, say_so))
            except BaseException as error:
                found.set_exception(error)

        # In a thread of its own: a name server that is silent is not to keep us from ending.
        found: Future[Any] = Future()
        looking = threading.Thread(target=locate, name="looking for the name server", daemon=True)
        looking.start()
        while looking.is_alive() and not lifetime.ended.is_set():
            looking.join(0.1)
        if lifetime.ended.is_set() and (not found.done() or found.exception() is not None):
            raise Interrupted(lifetime.signal, "while it waited for the name server")
        found.result()
    return location


def find_dispatcher(nameserver: Any, timeout: float) -> Any | None:
    """Connect to the dispatcher that the name server knows, if it knows one and it answers."""
    uri = lookup(nameserver, names.DISPATCHER)
    try:
        return connect(uri, timeout=timeout, connect_timeout=timeout) if uri is not None else None
    except CommunicationError as error:
        logger.info("the dispatcher at %s does not answer: %s", uri, error)
        return None


def require_dispatcher(options: argparse.Namespace) -> Any:
    """Connect to the cluster's dispatcher.

    Raises
    ------
    RuntimeError
        If there is none, or it does not answer.
    """
    location = find_nameserver(options)
    dispatcher = find_dispatcher(location.locate(), 10.0)
    if dispatcher is None:
        raise RuntimeError(
            f"the name server {location} knows no dispatcher that answers: start 'distcorpus dispatcher'"
        )
    return dispatcher
