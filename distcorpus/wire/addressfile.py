"""Where the name server is, in a file on a disk that all hosts share: for networks without broadcasts.

The name server writes the file when it listens, and removes it when it ends. Everybody else reads it each
time that they look for the name server, so that one which was started anew is found.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from Pyro4.errors import NamingError

log = logging.getLogger(__name__)

#: The environment variable that names the file, for models and for all but the name server.
VARIABLE = "DISTCORPUS_ADDRESS_FILE"
#: The largest file that is read.
MAX_BYTES = 4096
_MAX_TEXT = 256


@dataclass(frozen=True, slots=True)
class Address:
    """What the file says.

    Attributes
    ----------
    host : str
    port : int
        Of the name server.
    written_by : str
        The host and the process that wrote it.
    written_at : float
        When, in seconds since 1970.
    """

    host: str
    port: int
    written_by: str
    written_at: float

    def __post_init__(self) -> None:
        for name, kind in Address.__annotations__.items():
            value = getattr(self, name)
            if type(value).__name__ != kind or (kind == "str" and not 0 < len(value) <= _MAX_TEXT):
                raise ValueError(f"{name} is {value!r:.100}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port is {self.port}")

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.written_at))
        return f"written by {self.written_by}, {when}"


def write(path: str | os.PathLike[str], host: str, port: int) -> Callable[[], None]:
    """Say in a file where the name server is; it is whole at any moment.

    Parameters
    ----------
    path : path-like
        Its folder has to be there. What it said before is replaced.
    host : str
    port : int

    Returns
    -------
    callable
        Removes the file, if it is still this one.

    Raises
    ------
    OSError
        It cannot be written.
    """
    path = Path(path)
    address = Address(host, port, f"pid {os.getpid()} on {socket.gethostname()}", time.time())
    contents = json.dumps(asdict(address), indent=1) + "\n"
    # Beside it, because only within a file system is a file put in another's place at once.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(file.name, 0o666 & ~umask)  # as other files: it holds no secret
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise

    def remove() -> None:
        with suppress(OSError):
            if path.read_text("utf-8") == contents:
                path.unlink()

    return remove


def read(path: str | os.PathLike[str]) -> Address | None:
    """Return what a file says; None where there is none.

    Raises
    ------
    NamingError
        It cannot be read, or says something else.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is longer than {MAX_BYTES} bytes")
        return Address(**json.loads(data))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NamingError(f"the address file {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise NamingError(
            f"{path} is no address file of a name server ({error}): name the one that "
            "'distcorpus nameserver --address-file' wrote"
        ) from None
