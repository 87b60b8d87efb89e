"""What every serializer of ours does to calls and to the exceptions that answer them."""

from __future__ import annotations

import io
import pickle
import pickletools
import threading
from collections.abc import Callable, Iterable
from typing import Any

import Pyro4.core
from Pyro4.errors import SecurityError, SerializeError

from distcorpus.wire import allowed, roles, unpickle

_LONGEST_HEAD = 2048
_LONGEST_NAME = 100
_BEFORE_NAMES = frozenset({"PROTO", "FRAME", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT"})


#: In the place of `copyreg`'s, where other libraries register ways of their own for the whole process: once
#: Dask is imported, it writes exceptions as calls of a function that no peer of ours has.
_WAYS: dict[type, Callable[[Any], Any]] = {complex: lambda value: (complex, (value.real, value.imag))}


def pickled(value: Any, protocol: int = 5) -> bytes:
    """Return what `write` writes."""
    stream = io.BytesIO()
    write(value, stream, protocol)
    return stream.getvalue()


def write(value: Any, stream: Any, protocol: int, **options: Any) -> None:
    """Pickle a value, whatever other libraries have registered for its classes."""
    pickler = pickle.Pickler(stream, protocol, **options)
    pickler.dispatch_table = _WAYS
    pickler.dump(value)


def read(data: Any, buffers: Iterable[Any] = (), size: int | None = None) -> Any:
    """Read a pickle that arrived, as `unpickle.load` does; what it makes counts as its connection's."""
    connection = Pyro4.core.current_context.client
    account = getattr(connection, "account", None)
    return unpickle.load(data, allowed.resolve, buffers, size=size, account=account)


def read_call(data: Any, load: Callable[[], Any]) -> tuple[str, str, Any, Any]:
    """Read a call that arrived; its arguments only if the caller's role allows the call.

    Parameters
    ----------
    data : bytes-like
        The pickle of the call.
    load : callable
        Loads it.

    Returns
    -------
    tuple of (str, str, sequence, dict or None)
        As `check_call` returns it.

    Raises
    ------
    SecurityError
        The caller may not make this call.
    SerializeError
        It is malformed.
    """
    connection = Pyro4.core.current_context.client
    role = getattr(connection, "role", None)
    if role is None:
        return check_call(load())
    _check_role(connection, *_names_in(data))
    call = check_call(load())
    _check_role(connection, *call[:2])  # a pickle may take back what it began with
    return call


def _check_role(connection: Any, object_id: str, method: str) -> None:
    try:
        roles.check_call(connection.role, object_id, method)
    except SecurityError:
        connection.count_refusal("role")
        raise


def _names_in(data: Any) -> list[str]:
    """The object and the method that a call's pickle begins with."""
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(bytes(data[:_LONGEST_HEAD])):
            if type(argument) is str:
                texts.append(argument)
                if len(texts) == 2:
                    return texts
            elif opcode.name not in _BEFORE_NAMES:
                break
    except ValueError:
        pass
    raise SerializeError("malformed call: it does not begin with an object and a method")


def check_call(call: Any) -> tuple[str, str, Any, Any]:
    """The object id, method name, arguments and keyword arguments of a call that arrived.

    Raises
    ------
    AttributeError
        It asks for an attribute.
    SerializeError
        `call` is not such a tuple.
    """
    if type(call) is tuple and len(call) == 4:
        object_id, method, args, kwargs = call
        named = kwargs is None or (type(kwargs) is dict and all(type(key) is str for key in kwargs))
        if type(object_id) is str and type(method) is str and type(args) in (tuple, list) and named:
            if method.startswith("__"):  # Pyro4's way to attributes, of which nothing here offers any
                raise AttributeError(f"refused {method[:_LONGEST_NAME]}: only methods can be called")
            return object_id, method, args, kwargs
    raise SerializeError("malformed call: it is not (object, method, arguments, keyword arguments)")


class Written:
    """An answer that many ask for: each serializer writes it once.

    Parameters
    ----------
    value : any
        It must not change any more.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        self._lock = threading.Lock()
        self._written: dict[int, Any] = {}

    def by(self, serializer_id: int, write: Callable[[Any], Any]) -> Any:
        """Return what `write` makes of the value; the same as before if that serializer asked before."""
        with self._lock:
            if serializer_id not in self._written:
                self._written[serializer_id] = write(self.value)
            return self._written[serializer_id]


def portable(value: Any) -> Any:
    """`value`; an exception that a peer could not read is replaced by its nearest base class that every peer
    can.

    So a program that knows nothing of this project still gets, say, a ValueError with the message.
    """
    if not isinstance(value, BaseException) or _readable(value):
        return value
    text = str(value)
    for cls in type(value).__mro__:
        if allowed.is_portable_exception(cls):
            try:
                error = cls(text)
            except TypeError:  # UnicodeDecodeError and its like want more than a message
                continue
            error._pyroTraceback = getattr(value, "_pyroTraceback", None)
            return error
    return RuntimeError(f"{type(value).__name__}: {text}")


def _readable(error: BaseException) -> bool:
    if not allowed.is_portable_exception(type(error)):
        return False
    try:
        unpickle.load(pickled(error), allowed.resolve)
    except Exception:
        return False
    return True
