"""Pyro4 made safe for this whole process: its pickle restricted, its side doors shut."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from typing import Any

import Pyro4.core
from Pyro4 import message, socketutil, util
from Pyro4.configuration import config
from Pyro4.errors import SecurityError, SerializeError

from distcorpus.wire import allowed, scoped, sockets, tls
from distcorpus.wire.calls import Written, pickled, portable, read, read_call
from distcorpus.wire.frames import FramesSerializer

MAX_MESSAGE_BYTES = 1 << 30
MAX_DECOMPRESSED_BYTES = 64 << 20
#: What a compressed message may become: so many times its size, and so many bytes whatever its size.
MOST_COMPRESSED = 32
DECOMPRESSED_FREE = 1 << 20
#: Names classes of the user's own that may arrive, see `allowed.allow`.
ALLOW_VARIABLE = "DISTCORPUS_ALLOW"

#: Pyro4's header counts a message's bytes in 31 bits.
LARGEST_MESSAGE_BYTES = (1 << 31) - (1 << 20)
SMALLEST_MESSAGE_BYTES = 1 << 20

_lock = threading.Lock()
_installed = False


class RestrictedPickleSerializer(util.PickleSerializer):
    """Pyro4's pickle, as unmodified programs speak it, which makes only what `wire.allowed` lists."""

    def dumps(self, data: Any) -> bytes:
        if isinstance(data, Written):
            return data.by(self.serializer_id, self.dumps)
        return pickled(portable(data), config.PICKLE_PROTOCOL_VERSION)

    def dumpsCall(self, obj: str, method: str, vargs: Any, kwargs: Any) -> bytes:
        return pickled((obj, method, vargs, kwargs), config.PICKLE_PROTOCOL_VERSION)

    def loads(self, data: Any) -> Any:
        return read(data)

    def loadsCall(self, data: Any) -> tuple[str, str, Any, Any]:
        return read_call(data, lambda: self.loads(data))

    def deserializeData(self, data: Any, compressed: bool = False) -> Any:
        return self.loads(decompress(data) if compressed else data)

    def deserializeCall(self, data: Any, compressed: bool = False) -> tuple[str, str, Any, Any]:
        return self.loadsCall(decompress(data) if compressed else data)

    @classmethod
    def register_type_replacement(cls, object_type: type, replacement_function: Any) -> None:
        """Ignored: Pyro4 would register it with ``copyreg`` for every pickle of the process."""


class StringMarshalSerializer(util.MarshalSerializer):
    """The one thing that Pyro4 needs marshal for: the reason, a string, why a daemon refused a connection.

    ``marshal.loads`` itself is not safe against crafted bytes.
    """

    def loads(self, data: Any) -> str:
        kind = bytes(data[:1])[0] & 0x7F if data else 0
        if kind in b"zZ":
            start, size = 2, bytes(data[1:2])[0] if len(data) > 1 else -1
        elif kind in b"uaAt":
            start, size = 5, struct.unpack_from("<I", data, 1)[0] if len(data) >= 5 else -1
        else:
            raise SecurityError("refused a marshalled object: only a refusal's reason is read")
        if size < 0 or start + size != len(data):
            raise SerializeError("malformed marshalled string")
        return bytes(data[start:]).decode("utf-8", "replace")

    def loadsCall(self, data: Any) -> Any:
        raise SecurityError("refused a marshalled call")

    def deserializeData(self, data: Any, compressed: bool = False) -> Any:
        return self.loads(decompress(data) if compressed else data)


def decompress(data: Any) -> bytes:
    """Decompress a message, as far as its size allows; memory beyond that is never taken.

    Raises
    ------
    SecurityError
        The message is larger.
    SerializeError
        `data` is not compressed by zlib.
    """
    stream = zlib.decompressobj()
    most = min(MAX_DECOMPRESSED_BYTES, DECOMPRESSED_FREE + MOST_COMPRESSED * len(data))
    try:
        result = stream.decompress(data, most)
    except zlib.error as error:
        raise SerializeError(f"malformed compressed message: {error}") from error
    if not stream.eof:
        raise SecurityError(
            f"refused a compressed message of {len(data)} bytes that becomes over {most}; "
            "send it uncompressed (unset PYRO_COMPRESSION)"
        )
    return result


def install() -> None:
    """Make Pyro4 in this process speak the restricted serializers; again and again does no harm.

    Stock pickle's id then belongs to `RestrictedPickleSerializer`, `FramesSerializer` is added, dill and
    cloudpickle are removed, marshal reads strings only, blobs and batches are refused, and no
    object is replaced by a proxy. Pyro4's proxies use pickle, as gensim's distributed models need, and TLS
    where ``DISTCORPUS_TLS`` names credentials.
    """
    global _installed
    with _lock:
        if _installed:
            return
        for name in ("dill", "cloudpickle"):
            removed = util._serializers.pop(name, None)
            if removed is not None:
                del util._serializers_by_id[removed.serializer_id]
        for name, serializer in (
            ("pickle", RestrictedPickleSerializer()),
            ("frames", FramesSerializer()),
            ("marshal", StringMarshalSerializer()),
        ):
            util._serializers[name] = util._serializers_by_id[serializer.serializer_id] = serializer
        for spec in filter(None, os.environ.get(ALLOW_VARIABLE, "").split(",")):
            allowed.allow(spec)
        Pyro4.core.Daemon._Daemon__deserializeBlobArgs = _refuse_blob
        message.FLAGS_BATCH = 0  # a batch would hide the methods that it calls
        socketutil.sendData = sockets.send_data
        socketutil.receiveData = sockets.receive_data
        socketutil.setKeepalive = sockets.set_keepalive
        config.SERIALIZER = "pickle"
        config.SERIALIZERS_ACCEPTED = {"pickle", "frames"}
        config.AUTOPROXY = False
        config.REQUIRE_EXPOSE = True
        config.DETAILED_TRACEBACK = False  # would send the values of variables to a peer
        config.COMPRESSION = False
        config.MAX_RETRIES = 0  # a call that was sent twice would be counted twice
        config.ONEWAY_THREADED = False  # any caller may ask for a oneway call, and each would start a thread
        config.SOCK_NODELAY = True
        config.MAX_MESSAGE_SIZE = config.MAX_MESSAGE_SIZE or MAX_MESSAGE_BYTES
        scoped.install()
        tls.install()
        _installed = True


def limit_messages(nbytes: float) -> None:
    """Let this process send and receive messages up to a size.

    Raises
    ------
    ValueError
        It is below `SMALLEST_MESSAGE_BYTES` or above `LARGEST_MESSAGE_BYTES`.
    """
    install()
    if not SMALLEST_MESSAGE_BYTES <= nbytes <= LARGEST_MESSAGE_BYTES:
        raise ValueError(
            f"messages of {nbytes / 2**20:g} MB: give {SMALLEST_MESSAGE_BYTES >> 20} to "
            f"{LARGEST_MESSAGE_BYTES >> 20}"
        )
    config.MAX_MESSAGE_SIZE = int(nbytes)


def _refuse_blob(daemon: Any, message: Any) -> Any:
    raise SecurityError("refused a serialized blob: its annotation is marshalled")
