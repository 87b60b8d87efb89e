"""What environment variables of Pyro4's and of ours may be; every room may ask.

It imports nothing: Pyro4 reads its own when it is imported, and fails where one is wrong.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

#: What is right, in words, and whether a text is that.
Rule = tuple[str, Callable[[str], bool]]


def is_class(spec: str) -> bool:
    """Return whether a text names a top-level class, as ``module:Class``."""
    module, _, name = spec.partition(":")
    return all(part.isidentifier() for part in module.split(".")) and name.isidentifier()


def _number(said: str) -> float:
    try:
        return float(said)
    except ValueError:
        return math.nan


def _whole(least: float, most: float = math.inf) -> Callable[[str], bool]:
    def is_right(said: str) -> bool:
        try:
            return least <= int(said) <= most
        except ValueError:
            return False

    return is_right


_TEXT: Rule = ("any text", lambda said: True)
_PORT: Rule = ("a whole number from 0 to 65535", _whole(0, 65535))
_COUNT: Rule = ("a whole number, 0 or more", _whole(0))
_ANY_WHOLE: Rule = ("a whole number", _whole(-math.inf))
_SECONDS: Rule = ("a number of seconds, 0 or more", lambda said: 0 <= _number(said) < math.inf)
_FLAG: Rule = (
    "1, yes, on or true, or 0, no, off or false",
    lambda said: said.lower() in ("1", "yes", "on", "true", "0", "no", "off", "false"),
)
_LEVELS = "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"

#: Pyro4's, without ``PYRO_``.
_PYRO: Mapping[Rule, str] = {
    _PORT: "NS_PORT NS_BCPORT NATPORT",
    _COUNT: "MAX_MESSAGE_SIZE MAX_RETRIES THREADPOOL_SIZE THREADPOOL_SIZE_MIN",
    _ANY_WHOLE: "PREFER_IP_VERSION PICKLE_PROTOCOL_VERSION DILL_PROTOCOL_VERSION",
    _SECONDS: "COMMTIMEOUT POLLTIMEOUT NS_AUTOCLEAN ITER_STREAM_LIFETIME ITER_STREAM_LINGER",
    _FLAG: "AUTOPROXY COMPRESSION DETAILED_TRACEBACK FLAME_ENABLED ITER_STREAMING LOGWIRE METADATA "
    "ONEWAY_THREADED REQUIRE_EXPOSE SOCK_NODELAY SOCK_REUSE SSL SSL_REQUIRECLIENTCERT USE_MSG_WAITALL",
    _TEXT: "BROADCAST_ADDRS HOST JSON_MODULE LOGFILE NATHOST NS_BCHOST NS_HOST SERIALIZER "
    "SERIALIZERS_ACCEPTED SERVERTYPE SSL_CACERTS SSL_CLIENTCERT SSL_CLIENTKEY SSL_CLIENTKEYPASSWD "
    "SSL_SERVERCERT SSL_SERVERKEY SSL_SERVERKEYPASSWD",
}

#: What each variable may be. One of ours that is empty counts as not set.
RULES: Mapping[str, Rule] = {
    **{f"PYRO_{name}": rule for rule, names in _PYRO.items() for name in names.split()},
    "PYRO_LOGLEVEL": (
        f"one of {', '.join(_LEVELS)}",
        lambda said: not said or isinstance(getattr(logging, said, None), int),
    ),
    "DISTCORPUS_ALLOW": (
        "MODULE:CLASS, several with commas between them",
        lambda said: all(map(is_class, filter(None, said.split(",")))),
    ),
    "DISTCORPUS_DISTRIBUTED": ("0 or 1", lambda said: said in ("", "0", "1")),
    "DISTCORPUS_REFUSED_SHARE": (
        "a number above 0, the share of a core",
        lambda said: not said or _number(said) > 0,
    ),
    "DISTCORPUS_THREADS": (
        "a whole number above 0",
        lambda said: not said or _whole(1)(said.split(",")[0]),
    ),
}


def wrong(environment: Mapping[str, str]) -> dict[str, str]:
    """Return, for each variable whose value is wrong, what it may be."""
    return {
        name: RULES[name][0]
        for name, value in sorted(environment.items())
        if name in RULES and not RULES[name][1](value)
    }


@contextmanager
def without(names: Iterable[str]) -> Iterator[None]:
    """Take variables out of this process's environment while the block runs."""
    taken = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(taken)
