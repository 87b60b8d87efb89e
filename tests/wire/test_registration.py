"""Names stay registered, whatever happens to the name server."""

from __future__ import annotations

from typing import Any

import pytest

from distcorpus import wire
from distcorpus.wire import registration

NAMES = (wire.names.DISPATCHER, wire.names.LSI_DISPATCHER, wire.names.LDA_DISPATCHER)


def test_a_name_server_that_is_started_again_between_two_names(
    daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch
):
    """A daemon that starts gives it the time that it needs, and registers all names with the new one."""
    servers = [wire.NameServerDaemon(port=0, broadcast=False)]
    servers[0].start()
    port = servers[0].port
    refusals: list[wire.NamingError] = []
    register = registration.register

    def register_and_stop(nameserver: Any, name: str, uri: str, replace: bool = False) -> None:
        register(nameserver, name, uri, replace)
        if len(servers) == 1 and not refusals:
            servers[0].stop()

    def locate() -> Any:
        try:
            return wire.find("127.0.0.1", port, broadcast=False)
        except wire.NamingError as error:
            if not refusals:
                refusals.append(error)
            elif len(servers) == 1:
                servers.append(wire.NameServerDaemon(port=port, broadcast=False))
                servers[1].start()
            raise

    monkeypatch.setattr(registration, "register", register_and_stop)
    monkeypatch.setattr(registration, "CHECK_EVERY", 0.05)
    names = {name: daemon.uri("echo") for name in NAMES}
    keeper = registration.Registration(locate, names)
    keeper.start()
    try:
        assert refusals
        assert set(NAMES[1:]) <= set(wire.list_names(locate()))
    finally:
        keeper.stop()
        servers[1].stop()


def test_no_name_server_is_said(daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registration, "START_TIMEOUT", 0.3)
    server = wire.NameServerDaemon(port=0, broadcast=False)
    server.start()
    server.stop()
    keeper = registration.Registration(
        lambda: wire.find("127.0.0.1", server.port, broadcast=False), {NAMES[0]: daemon.uri("echo")}
    )
    with pytest.raises(wire.NamingError, match="no name server found"):
        keeper.start()
