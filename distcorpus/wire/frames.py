"""The serializer between processes of ours: pickle protocol 5 with its large buffers beside it, never copied.

The data of a message is::

    magic, number of buffers (uint32), size of the pickle and of each buffer (uint64 each), in network byte
    order the pickle each buffer

where the pickle and each buffer start at a multiple of 64 bytes. A sender hands the arrays' own memory to the
system; a receiver reads the message into one block and the arrays that arrive are writable views of it, which
keep the block alive.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Iterator
from typing import Any

from Pyro4.errors import SecurityError, SerializeError
from Pyro4.util import SerializerBase

from distcorpus.wire.calls import Written, portable, read, read_call, write
from distcorpus.wire.sockets import Gather

FRAMES_ID = 64

_MAGIC = b"DCF1"
_HEAD = struct.Struct("!4sI")
_SIZE = struct.Struct("!Q")
_ALIGNMENT = 64
_SMALL = 4096  # bytes; a smaller buffer is cheaper to copy than to send by itself
_PADDING = bytes(_ALIGNMENT)


class FramesSerializer(SerializerBase):
    """Pyro4's interface to the format."""

    serializer_id = FRAMES_ID

    def dumps(self, data: Any) -> Gather:
        if isinstance(data, Written):
            return data.by(self.serializer_id, self.dumps)
        return encode(portable(data))

    def dumpsCall(self, obj: str, method: str, vargs: Any, kwargs: Any) -> Gather:
        return encode((obj, method, vargs, kwargs))

    def loads(self, data: Any) -> Any:
        return decode(data)

    def loadsCall(self, data: Any) -> tuple[str, str, Any, Any]:
        stream, buffers = split(data)
        return read_call(stream, lambda: read(stream, buffers, len(data)))

    def deserializeData(self, data: Any, compressed: bool = False) -> Any:
        _refuse_compressed(compressed)
        return self.loads(data)

    def deserializeCall(self, data: Any, compressed: bool = False) -> tuple[str, str, Any, Any]:
        _refuse_compressed(compressed)
        return self.loadsCall(data)

    @classmethod
    def register_type_replacement(cls, object_type: type, replacement_function: Any) -> None:
        """Ignored: objects are never replaced by proxies on their way."""


class CannotSendError(SerializeError):
    """What was to be sent has something in it that cannot be: the sender's fault, not the connection's."""


def encode(value: Any) -> Gather:
    """Encode `value`; contiguous arrays are referred to, not copied, and must not change until they are sent.

    Raises
    ------
    CannotSendError
        `value` cannot be pickled.
    """
    buffers: list[memoryview] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _SMALL:
            return True
        buffers.append(raw)
        return False

    stream = io.BytesIO()
    try:
        write(value, stream, 5, buffer_callback=keep_in_band)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        raise CannotSendError(f"cannot send a {type(value).__name__}: {error}") from error
    parts: list[bytes | memoryview] = [stream.getvalue(), *buffers]
    sizes = [len(part) for part in parts]
    head = _HEAD.pack(_MAGIC, len(buffers)) + struct.pack(f"!{len(sizes)}Q", *sizes)
    frames: list[bytes | memoryview] = [head]
    position = len(head)
    for part in parts:
        padding = -position % _ALIGNMENT
        frames += (_PADDING[:padding], part)
        position += padding + len(part)
    return Gather(frames)


def decode(data: Any) -> Any:
    """Decode one message; its arrays are views of `data`, and writable where `data` is.

    Raises
    ------
    SecurityError
        The message asks for something that may not arrive (see `distcorpus.wire.allowed`).
    SerializeError
        The message is malformed.
    """
    stream, buffers = split(data)
    return read(stream, buffers, len(data))


def split(data: Any) -> tuple[memoryview, Iterator[memoryview]]:
    """The pickle of a message and its buffers, which are views of `data`, and writable where `data` is.

    Raises
    ------
    SerializeError
        The message is malformed.
    """
    view = memoryview(data)
    try:
        magic, count = _HEAD.unpack_from(view)
        (of_pickle,) = _SIZE.unpack_from(view, _HEAD.size)
    except struct.error as error:
        raise SerializeError("malformed message: it ends within its head") from error
    # Each buffer is asked for by an opcode.
    if magic != _MAGIC or count > of_pickle or of_pickle > len(view):
        raise SerializeError("malformed message: it does not start as frames do")
    head = _HEAD.size + _SIZE.size * (count + 1)
    if head > len(view):
        raise SerializeError("malformed message: it ends within its head")
    for _, end in _places(view[_HEAD.size : head], head):
        if end > len(view):
            break
    if end != len(view):
        raise SerializeError("malformed message: its frames do not fill it")
    places = _places(view[_HEAD.size : head], head)
    start, end = next(places)
    return view[start:end], (_buffer(view[start:end]) for start, end in places)


def _places(sizes: memoryview, end: int) -> Iterator[tuple[int, int]]:
    """Where each frame starts and ends; one after the other, for there may be millions."""
    for (size,) in _SIZE.iter_unpack(sizes):
        start = end + -end % _ALIGNMENT
        end = start + size
        yield start, end


def _buffer(part: memoryview) -> memoryview:
    return memoryview(bytearray(part)) if part.readonly else part


def _refuse_compressed(compressed: bool) -> None:
    if compressed:
        raise SecurityError("refused a compressed message: frames are never compressed")
