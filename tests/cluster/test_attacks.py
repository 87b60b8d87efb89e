"""A pickle that would run a command, sent to each of the three daemons of a real cluster."""

from __future__ import annotations

import os
import pickle
import socket

import pytest
from Pyro4 import message, util
from Pyro4.socketutil import SocketConnection

from distcorpus.wire import connect, find, list_names, lookup, names


class RunsCommand:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def targets(cluster):
    """Address and object id of every object of every daemon."""
    environ = cluster.environ()
    ns = find(environ["PYRO_NS_HOST"], int(environ["PYRO_NS_PORT"]), broadcast=False)
    for name, uri in list_names(ns).items():
        object_id, address = uri.removeprefix("PYRO:").split("@")
        host, port = address.rsplit(":", 1)
        yield name, object_id, (host, int(port))


def exchange(connection, kind, payload, flags=0):
    """Send a message with stock-pickled content and return the answer's type and flags."""
    sent = message.Message(kind, pickle.dumps(payload), util.PickleSerializer.serializer_id, flags, 1)
    connection.send(sent.to_bytes())
    answer = message.Message.recv(connection)
    return answer.type, answer.flags


def open_connection(address):
    sock = socket.create_connection(address, timeout=20)
    return SocketConnection(sock)


def test_pickles_that_run_commands_are_refused(cluster, tmp_path):
    witness = tmp_path / "witness"
    payload = RunsCommand(f"touch {witness}")
    attacked = set()
    for name, object_id, address in targets(cluster):
        connection = open_connection(address)
        kind, _ = exchange(connection, message.MSG_CONNECT, {"handshake": payload, "object": object_id})
        assert kind == message.MSG_CONNECTFAIL, name
        connection.close()

        connection = open_connection(address)
        kind, _ = exchange(connection, message.MSG_CONNECT, {"handshake": "hello", "object": object_id})
        assert kind == message.MSG_CONNECTOK, name
        for method in ("ping", "status", "initialize", "process"):
            call = (object_id, method, (payload,), {})
            try:
                kind, flags = exchange(connection, message.MSG_INVOKE, call)
            except Exception:  # to hang up is a refusal too
                connection = open_connection(address)
                exchange(connection, message.MSG_CONNECT, {"handshake": "hello", "object": object_id})
            else:
                assert flags & message.FLAGS_EXCEPTION, (name, method)
        connection.close()
        attacked.add(name.rsplit("-", 1)[0])
    assert not witness.exists()
    assert {names.NAME_SERVER, names.DISPATCHER, names.LSI_DISPATCHER, names.LDA_DISPATCHER} < attacked
    assert any(name.startswith(names.WORKER_PREFIX) for name in attacked)
    assert connect(lookup(find(*_where(cluster)), names.DISPATCHER)).ping() == "pong"


def _where(cluster):
    environ = cluster.environ()
    return environ["PYRO_NS_HOST"], int(environ["PYRO_NS_PORT"])


@pytest.mark.parametrize("serializer", [1, 2, 3, 5, 6, 7])
def test_other_serializers_are_refused(cluster, serializer):
    for name, object_id, address in targets(cluster):
        connection = open_connection(address)
        data = pickle.dumps({"handshake": "hello", "object": object_id})
        connection.send(message.Message(message.MSG_CONNECT, data, serializer, 0, 1).to_bytes())
        assert message.Message.recv(connection).type == message.MSG_CONNECTFAIL, name
        connection.close()
