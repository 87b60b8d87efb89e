"""Frames carry any value, and large arrays without a copy."""

from __future__ import annotations

import contextlib
import copyreg
import pickle
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import Pyro4.util
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from Pyro4.errors import ConnectionClosedError, SecurityError, SerializeError
from Pyro4.errors import TimeoutError as CallTimeout

from distcorpus import wire
from distcorpus.wire import sockets
from distcorpus.wire.frames import decode, encode
from distcorpus.wire.sockets import Gather, receive_data, send_data
from distcorpus.wire.unpickle import OutsideVocabulary

dtypes = hnp.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc") | hnp.unicode_string_dtypes()
# A few thousand numbers are more than what travels inside the pickle.
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)).flatmap(
    lambda array: st.sampled_from(
        [
            array,
            np.asfortranarray(array),
            array.T,
            array[..., ::2] if array.ndim else array,
            np.tile(array, 1500),
        ]
    )
)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text() | st.binary()
values = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


def assert_same(read: Any, sent: Any) -> None:
    assert type(read) is type(sent)
    if isinstance(sent, np.ndarray):
        assert read.dtype == pickle.loads(pickle.dumps(sent, 5)).dtype  # numpy makes some orders native
        np.testing.assert_array_equal(read, sent)
        assert read.flags.writeable
        assert read.flags.aligned
    elif isinstance(sent, (list, tuple)):
        assert len(read) == len(sent)
        for a, b in zip(read, sent, strict=True):
            assert_same(a, b)
    elif isinstance(sent, dict):
        assert read.keys() == sent.keys()
        for key in sent:
            assert_same(read[key], sent[key])
    else:
        np.testing.assert_equal(read, sent)


def received(gather: Gather) -> memoryview:
    """The bytes of a message in a block as `receive_data` makes one."""
    block = np.empty(len(gather), np.uint8)
    block[:] = np.frombuffer(bytes(gather), np.uint8)
    return block.data


@settings(deadline=None, max_examples=60)
@given(values)
def test_what_is_sent_is_received(value: Any):
    assert_same(decode(received(encode(value))), value)
    assert_same(decode(bytes(encode(value))), value)


def test_a_large_array_is_not_copied():
    sent = np.arange(100_000.0)
    gather = encode({"rows": sent})
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), sent) for part in gather.parts)
    message = received(gather)
    read = decode(message)["rows"]
    assert np.shares_memory(read, np.frombuffer(message, np.uint8))


def test_every_buffer_begins_at_a_multiple_of_64_bytes():
    sent = [np.arange(size, dtype=np.uint8) for size in (5001, 4097, 9999)]
    message = received(encode(sent))
    base = np.frombuffer(message, np.uint8).ctypes.data
    assert [(array.ctypes.data - base) % 64 for array in decode(message)] == [0, 0, 0]


def test_a_sparse_matrix_arrives_checked():
    sent = scipy.sparse.random(2000, 500, 0.02, "csc", random_state=1)
    read = decode(received(encode(sent)))
    assert (read != sent).nnz == 0
    sent.indices[7] = 1_000_000
    with pytest.raises(OutsideVocabulary, match="document"):
        decode(received(encode(sent)))


def test_what_cannot_be_sent_is_named():
    with pytest.raises(SerializeError, match="cannot send"):
        encode([threading.Lock()])


@pytest.mark.parametrize("size", [0, 4, 8, 15, 16, 23])
def test_a_truncated_message_is_refused(size: int):
    with pytest.raises(SerializeError):
        decode(bytes(encode(np.arange(5000)))[:size])


@pytest.mark.parametrize("count", [0, 1000, 2**32 - 1])
def test_a_lying_number_of_buffers_is_refused(count: int):
    message = bytearray(bytes(encode(np.arange(5000))))
    message[4:8] = struct.pack("!I", count)
    with pytest.raises((SerializeError, SecurityError)):
        decode(message)


@pytest.mark.parametrize("size", [0, 1, 2**31, 2**63, 2**64 - 1])
@pytest.mark.parametrize("which", [0, 1])
def test_a_lying_size_is_refused(which: int, size: int):
    message = bytearray(bytes(encode(np.arange(5000))))
    message[8 + 8 * which : 16 + 8 * which] = struct.pack("!Q", size)
    with pytest.raises((SerializeError, SecurityError)):
        decode(message)


def test_a_pickle_that_asks_for_more_buffers_is_refused():
    payload = pickle.dumps(np.arange(5000), 5, buffer_callback=lambda buffer: None)
    head = struct.pack("!4sI", b"DCF1", 0) + struct.pack("!Q", len(payload))
    with pytest.raises(SerializeError):
        decode(head + bytes(-len(head) % 64) + payload)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 3), st.data())
def test_garbage_is_an_error_and_nothing_else(garbage: bytes, count: int, data: st.DataObject):
    sizes = [data.draw(st.integers(0, 64)) for _ in range(count + 1)]
    head = struct.pack("!4sI", b"DCF1", count) + struct.pack(f"!{count + 1}Q", *sizes)
    for message in (garbage, head + garbage):
        with contextlib.suppress(SecurityError, SerializeError):
            decode(message)


# Over sockets.


def plain_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return client, server.accept()[0]


def tls_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TLS connection; anonymous, so that no certificate is needed."""
    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)]
    for context in contexts:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AECDH-AES128-SHA:@SECLEVEL=0")
    client, server = plain_pair()
    accepted: list[Any] = []
    thread = threading.Thread(
        target=lambda: accepted.append(contexts[1].wrap_socket(server, server_side=True))
    )
    thread.start()
    wrapped = contexts[0].wrap_socket(client)
    thread.join()
    return wrapped, accepted[0]


@pytest.mark.parametrize("make_pair", [plain_pair, tls_pair])
@pytest.mark.parametrize("timeout", [None, 20.0])
@pytest.mark.parametrize(
    "value",
    [
        "short",
        b"x" * 300_000,
        np.arange(1_000_000.0),
        [np.full(600, number, float) for number in range(3000)],  # more buffers than one sendmsg takes
    ],
    ids=["short", "bytes", "array", "3000 arrays"],
)
def test_messages_cross_a_socket(make_pair: Callable[[], Any], timeout: float | None, value: Any):
    sender, receiver = make_pair()
    with sender, receiver:
        for sock in (sender, receiver):
            sock.settimeout(timeout)
        gather = b"head" + encode(value)
        assert isinstance(gather, Gather)
        thread = threading.Thread(target=send_data, args=(sender, gather))
        thread.start()
        assert bytes(receive_data(receiver, 4)) == b"head"
        assert_same(decode(receive_data(receiver, len(gather) - 4)), value)
        thread.join()


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_an_early_end_is_a_closed_connection(size: int):
    sender, receiver = plain_pair()
    with receiver:
        with sender:
            sender.sendall(b"12345")
        with pytest.raises(ConnectionClosedError, match="the connection was closed in the middle"):
            receive_data(receiver, size)
    with pytest.raises(ConnectionClosedError):
        send_data(sender, b"x" * size)


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_silence_is_a_timeout(size: int):
    sender, receiver = plain_pair()
    with sender, receiver:
        receiver.settimeout(0.05)
        with pytest.raises(CallTimeout):
            receive_data(receiver, size)
        sender.settimeout(0.05)
        with pytest.raises(CallTimeout):
            send_data(sender, bytes(50_000_000))


def test_a_connection_that_the_system_gives_up_is_lost_not_late():
    """Python raises the same TimeoutError for it; a peer that does not read stands for one that vanished."""
    sender, receiver = plain_pair()
    with sender, receiver:
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 50)
        with pytest.raises(ConnectionClosedError, match="the connection was closed"):
            send_data(sender, bytes(50_000_000))


def test_a_negative_size_is_an_error():
    sender, receiver = plain_pair()
    with sender, receiver, pytest.raises(ConnectionClosedError, match="-1"):
        receive_data(receiver, -1)


@pytest.mark.parametrize("serializer", ["frames", "pickle"])
def test_calls_carry_arrays_both_ways(daemon: wire.Daemon, serializer: str):
    proxy = wire.connect(daemon.uri("echo"), serializer=serializer)
    for sent in (
        np.arange(6, dtype=np.int32),
        np.asfortranarray(np.arange(600_000.0).reshape(3, -1)),
        np.arange(300_000.0)[::3],
        np.zeros((0, 5)),
        np.array(2.5),
    ):
        assert_same(proxy.echo(sent), sent)
    assert_same(proxy.echo({"a": [np.arange(9000)], "b": None}), {"a": [np.arange(9000)], "b": None})
    wire.close(proxy)


def test_arrays_travel_at_the_speed_of_memory(daemon: wire.Daemon):
    """Printed, for a loaded machine proves nothing about it but that it is not stuck."""
    sent = np.ones(6_250_000)
    proxy = wire.connect(daemon.uri("echo"))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        proxy.echo(sent)
        seconds.append(time.perf_counter() - start)
    wire.close(proxy)
    print(f"{2 * sent.nbytes / min(seconds) / 1e6:.0f} MB/s there and back")
    assert 2 * sent.nbytes / min(seconds) > 100e6


def test_memory_limits_can_be_raised():
    assert wire.share_freed_memory() in (True, False)
    assert sockets.VANISHED_AFTER < 10


@pytest.mark.parametrize("serializer", ["frames", "pickle"])
def test_what_others_register_for_a_class_is_not_used(serializer, monkeypatch):
    """As Dask does for exceptions, in every program that imports it."""
    monkeypatch.setitem(copyreg.dispatch_table, ValueError, lambda error: (print, ("no peer reads this",)))
    ours = Pyro4.util.get_serializer(serializer)
    message = ours.dumps(ValueError("a"))
    data = memoryview(b"".join(message.parts)) if serializer == "frames" else message
    assert ours.loads(data).args == ("a",)
