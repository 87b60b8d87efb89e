"""``distcorpus dashboard``."""

from __future__ import annotations

import argparse
import os
import socket
import ssl
from pathlib import Path

from distcorpus.cli.common import (
    Commands,
    find_nameserver,
    find_options,
    reading,
    secure_options,
    use_credentials,
    verbose_options,
)
from distcorpus.cli.service import Lifetime, report_ready, say
from distcorpus.cli.signals import ends_at_once
from distcorpus.wire.sockets import is_loopback

#: Names the file with the token of those who may look.
TOKEN_VARIABLE = "DISTCORPUS_DASHBOARD_TOKEN"
#: Words in a file of them, and bytes of it.
MOST_WORDS, LARGEST_WORDS = 10_000_000, 500_000_000


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "dashboard",
        parents=[verbose_options(), secure_options(), find_options()],
        help="show a running cluster in a browser",
        description="Show a running cluster in a browser: its training runs, workers, traffic and faults. "
        "It cannot change anything. Needs: pip install 'distcorpus[dashboard]'",
    )
    parser.add_argument(
        "--bind",
        default="127.0.0.1:8787",
        metavar="ADDRESS:PORT",
        help="address of the dashboard (default: %(default)s; port 0: any free port)",
    )
    parser.add_argument(
        "--certificate",
        nargs=2,
        metavar=("CERT", "KEY"),
        help="serve https with this certificate and key (PEM, with its chain); browsers have to trust it",
    )
    parser.add_argument(
        "--token",
        nargs="?",
        const="",
        default=os.environ.get(TOKEN_VARIABLE),
        metavar="FILE",
        help="ask for a token: the one in this file, or a new one; always done beyond this machine "
        f"(default: the file that {TOKEN_VARIABLE} names)",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond this machine without https and token: whoever reaches the port can look",
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="another name of this machine that browsers may use; may be given several times",
    )
    parser.add_argument(
        "--words",
        metavar="FILE",
        help="show topics as words: FILE is a dictionary that gensim's Dictionary.save_as_text wrote",
    )
    parser.add_argument("--until-eof", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--report-fd", type=int, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Serve until told to end."""
    try:
        with ends_at_once():
            from distcorpus.monitor.guard import new_token
            from distcorpus.monitor.poller import Poller
            from distcorpus.monitor.web import Dashboard
    except ImportError as error:
        raise RuntimeError(f"{error.name} cannot be imported: pip install 'distcorpus[dashboard]'") from error
    host, port = address(options.bind)
    beyond = not is_loopback(host)
    check_exposure(options, beyond)
    token = _read_token(options.token) if options.token else None
    if token is None and (options.token is not None or (beyond and not options.insecure)):
        token = new_token()
    if options.certificate:
        check_certificate(*options.certificate)
    words = None if options.words is None else read_words(options.words)
    use_credentials(options)
    lifetime = Lifetime(until_eof=options.until_eof)
    names = {socket.gethostname(), socket.getfqdn(), *options.name} if beyond else {*options.name}
    if not host.replace(".", "").isdigit() and ":" not in host:
        names.add(host)
    dashboard = Dashboard(
        Poller(find_nameserver(options)),
        (host, port),
        token=token,
        hosts=names,
        certificate=tuple(options.certificate) if options.certificate else None,
        words=words,
    )
    try:
        url = reachable(dashboard.address, [*options.name, socket.gethostname()][0])
        url += f"?token={token}" if token is not None else ""
        say(f"dashboard at {url}")
        report_ready(options.report_fd, {"url": url})
        lifetime.wait()
    finally:
        dashboard.close()


def address(text: str) -> tuple[str, int]:
    """Read ``ADDRESS:PORT``.

    Raises
    ------
    ValueError
        It is none.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"--bind {text!r}: give ADDRESS:PORT, such as 127.0.0.1:8787")
    return host, int(port)


def check_exposure(options: argparse.Namespace, beyond: bool) -> None:
    """Refuse to listen beyond this machine in the clear, unless that is asked for.

    Raises
    ------
    ValueError
        It is not.
    """
    if beyond and not options.certificate and not options.insecure:
        raise ValueError(
            f"--bind {options.bind} is for others than this machine: give --certificate CERT KEY to serve "
            "https, which also makes a token, or --insecure if everybody on this network may look; or leave "
            "it out and use 'ssh -L 8787:127.0.0.1:8787'"
        )


def check_certificate(certificate: str, key: str) -> None:
    """See to it that a certificate and its key can be used.

    Raises
    ------
    ValueError
        They cannot; it names the file.
    """
    for file in (certificate, key):
        try:
            open(file, "rb").close()
        except OSError as error:
            raise ValueError(f"--certificate: {file}: {error.strerror}") from None
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except OSError as error:
        raise ValueError(f"--certificate: {certificate}, with the key {key}: {error}") from None


def reachable(address: str, host: str) -> str:
    """Return the address of a page with the name of this host, where it is that of all of its interfaces."""
    return address.replace("//0.0.0.0:", f"//{host}:").replace("//[::]:", f"//{host}:")


def _read_token(path: str) -> str:
    """Read a token from a file that nobody else can read."""
    file = Path(path).expanduser()
    try:
        opened = file.open(encoding="utf-8")
    except OSError as error:  # not with the path, which is the token itself where somebody has mistaken it
        raise ValueError(
            f"the file that --token or {TOKEN_VARIABLE} names cannot be read: {error.strerror}; it takes a "
            "file with a token, not the token"
        ) from None
    with opened:
        if os.fstat(opened.fileno()).st_mode & 0o077:
            raise ValueError(f"others can read the token in {path}: chmod 600 {path}")
        token = opened.read(4096).strip()
    if len(token) < 16 or not token.isascii() or not token.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"{path} has no token: 16 or more letters, digits, - and _, on one line")
    return token


def read_words(path: str) -> list[str]:
    """Read the words of a dictionary that gensim wrote as text.

    Raises
    ------
    ValueError
        It is none.
    """
    with reading("--words", path):
        return _words(path)


def _words(path: str) -> list[str]:
    file = Path(path).expanduser()
    if file.stat().st_size > LARGEST_WORDS:
        raise ValueError(f"--words {path} has more than {LARGEST_WORDS // 10**6} MB")
    found: dict[int, str] = {}
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            parts = line.rstrip("\n").split("\t")
            if number == 0 and len(parts) == 1:  # how many documents there were
                continue
            if len(parts) != 3 or not parts[0].isdecimal() or int(parts[0]) >= MOST_WORDS:
                raise ValueError(
                    f"--words {path}, line {number + 1}: not what Dictionary.save_as_text writes, "
                    "which is ID, word, documents"
                )
            found[int(parts[0])] = parts[1][:200]
    return [found.get(term, "") for term in range(max(found, default=-1) + 1)]
