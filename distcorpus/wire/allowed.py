"""What may arrive in a pickle: exact (module, name) pairs, and a rule for each.

Names are matched whole: no prefixes, no dotted walks from an allowed module to something else. A class is
imported when the first pickle that names it arrives, so a process that receives no gensim object never loads
gensim.
"""

from __future__ import annotations

import builtins
import importlib
import math
import re
import zlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import Pyro4.core
import Pyro4.errors
from Pyro4.errors import SecurityError

from distcorpus._environment import is_class
from distcorpus.wire import unpickle
from distcorpus.wire.unpickle import OutsideVocabulary, Rule

Charge = Callable[[int], None]

_ARRAY_KINDS = frozenset("biufcSU")
_INT = frozenset({int})
unpickle.LEAVES.update({np.ndarray, *(type(np.dtype(kind)) for kind in "?bhilqBHILQefdgFDGSU")})
#: The longest vocabulary: ids have 32 bits.
_LONGEST_RANGE = 2**31 - 1
_LONGEST = 400  # characters of a name
_DTYPE_SPEC = re.compile(r"b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SU]\d{1,9}")


def resolve(module: str, name: str) -> Any:
    """The rule or the plain value that stands for a global in a pickle.

    Raises
    ------
    SecurityError
        The pair is not on the list.
    """
    pair = module, name
    if len(module) + len(name) > _LONGEST:
        raise SecurityError(f"refused {module[:_LONGEST]}: no class has a name of over {_LONGEST} characters")
    found = _resolved.get(pair)
    if found is None:
        make = _ALLOWED.get(pair)
        if make is None:
            raise SecurityError(
                f"refused {module}.{name}: this class may not arrive in a pickle. If it is your own, start "
                f"the receiving daemon with --allow {module}:{name}"
            )
        found = _resolved[pair] = make()
    return found


def allow(spec: str) -> None:
    """Let objects of one class of yours arrive in this process, for example your own ``id2word``.

    ``--allow`` does it in a daemon, and the environment variable ``DISTCORPUS_ALLOW`` in any process: such
    pairs, with commas between them.

    Parameters
    ----------
    spec : str
        ``"module:Class"``, spelled as the class's ``__module__`` and ``__qualname__`` are. The class is
        imported when the first such object arrives. Its ``__new__``, ``__init__``, ``__setstate__`` and, of a
        subclass of dict, ``__setitem__`` then run with arguments that whoever can reach the port has chosen.

    Raises
    ------
    ValueError
        `spec` is not of that form.
    """
    if not is_class(spec):
        raise ValueError(f"allow takes 'module:Class' with a top-level class, not {spec!r}")
    module, _, name = spec.partition(":")
    _ALLOWED.setdefault((module, name), partial(_instances_of, module, name))


def is_portable_exception(error_type: type[BaseException]) -> bool:
    """Whether an exception of this very type can be read by any peer, ours or one that never imports us."""
    return _EXCEPTIONS.get((error_type.__module__, error_type.__qualname__)) is error_type


def _load(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


# Instances with a dictionary for a state: gensim's and the user's own classes.


def _plain_state(value: Any, state: Any) -> None:
    # gensim's load leaves names like "__numpys" behind; suspicious are Python's own, with underscores after.
    if type(state) is not dict or not all(
        type(key) is str and not (key.startswith("__") and key.endswith("__")) for key in state
    ):
        raise SecurityError(
            f"refused the state of a {type(value).__name__}: it is not a dictionary of attributes"
        )
    vars(value).update(state)


def _gensim_state(lengths: tuple[str, ...], value: Any, state: Any) -> None:
    """Restore an instance of gensim's; the attributes that state a length are whole numbers."""
    for key in lengths:
        if type(state) is dict and not (type(state.get(key)) is int and 0 <= state[key] <= _LONGEST_RANGE):
            raise SecurityError(
                f"refused a {type(value).__name__}: its {key} is not a whole number up to {_LONGEST_RANGE:,}"
            )
    if type(state) is dict and any(callable(getattr(type(value), str(key), None)) for key in state):
        raise SecurityError(f"refused a {type(value).__name__}: an attribute hides one of its methods")
    _plain_state(value, state)


def _bare_instances_of(module: str, name: str, *lengths: str) -> Rule:
    cls = _load(module, name)
    return Rule(new=lambda: cls.__new__(cls), restore=partial(_gensim_state, lengths), holds=True)


def _instances_of(module: str, name: str) -> Rule:
    cls = _load(module, name)
    if not isinstance(cls, type):
        raise SecurityError(
            f"refused {module}.{name}: only classes can be allowed, this is a {type(cls).__name__}"
        )
    restore = cls.__setstate__ if hasattr(cls, "__setstate__") else _plain_state
    return Rule(
        call=cls,
        new=lambda *args: cls.__new__(cls, *args),
        restore=restore,
        takes_items=issubclass(cls, dict),
        holds=True,
    )


# Exceptions: made anew of their arguments, which are scalars, and of nothing else. C code trusts their
# attributes, and would read wild memory where a stranger has set them.


def _make_exception(cls: type[BaseException], *args: Any) -> BaseException:
    if not all(type(arg) in _EXCEPTION_ARGUMENTS for arg in args):
        raise SecurityError(f"refused a {cls.__name__} that holds more than numbers and strings")
    if issubclass(cls, SyntaxError):
        args = args[:1]  # what follows is a place in a file, which a traceback would draw
    elif issubclass(cls, UnicodeError) and cls not in (UnicodeError, *_UNICODE_ERRORS):
        args = ("a refused UnicodeError",)
    elif cls in _UNICODE_ERRORS:
        _check_unicode_error(cls, args)
    return cls(*args)


def _check_unicode_error(cls: type[BaseException], args: tuple[Any, ...]) -> None:
    kinds = _UNICODE_ERRORS[cls]
    if tuple(map(type, args)) != kinds:
        raise SecurityError(f"refused a {cls.__name__}: its arguments are not its own")
    *_, text, start, end, _reason = args
    if not 0 <= start <= end <= len(text):
        raise SecurityError(f"refused a {cls.__name__}: its position is not in its text")


_EXCEPTION_ARGUMENTS = frozenset({str, bytes, int, float, bool, type(None)})
_UNICODE_ERRORS: dict[type, tuple[type, ...]] = {
    UnicodeDecodeError: (str, bytes, int, int, str),
    UnicodeEncodeError: (str, str, int, int, str),
    UnicodeTranslateError: (str, int, int, str),
}


def _exception_state(error: Any, state: Any) -> None:
    """Keep the peer's traceback, which Pyro4 sends as lines of text; any other attribute is dropped."""
    if type(state) is not dict:
        raise SecurityError("refused the state of an exception: it is not a dictionary of attributes")
    lines = state.get("_pyroTraceback")
    if type(lines) is list and all(type(line) is str for line in lines):
        error._pyroTraceback = list(lines)


def _exception_types() -> dict[tuple[str, str], type[BaseException]]:
    types: dict[tuple[str, str], type[BaseException]] = {}
    for namespace in (vars(builtins), vars(Pyro4.errors)):
        for value in namespace.values():
            # A group would be made of exceptions, not of text.
            if (
                isinstance(value, type)
                and issubclass(value, Exception)
                and value.__name__ != "ExceptionGroup"
            ):
                types[value.__module__, value.__qualname__] = value
    return types


# numpy.


def _make_dtype(spec: Any, align: Any = False, copy: Any = True) -> np.dtype[Any]:
    if type(spec) is not str or _DTYPE_SPEC.fullmatch(spec) is None:
        raise SecurityError("refused a numpy dtype that is not a plain number or string type")
    # A copy of its own: the state that follows must not reach the dtype that all of numpy shares.
    return np.dtype(spec, align=False, copy=True)


def _dtype_state(dtype: np.dtype[Any], state: Any) -> None:
    expected: Any = dtype.__reduce__()[2]
    if type(state) is not tuple or not all(type(part) in (int, str, type(None)) for part in state):
        raise SecurityError("refused the state of a numpy dtype")
    if state[:1] + state[2:] != expected[:1] + expected[2:] or state[1] not in ("<", ">", "|", "="):
        raise SecurityError("refused the state of a numpy dtype: it is not that of a plain type")
    dtype.__setstate__(state)  # type: ignore[attr-defined]


def _check_layout(charge: Charge, dtype: Any, shape: Any, nbytes: int) -> None:
    if not isinstance(dtype, np.dtype) or dtype.kind not in _ARRAY_KINDS or dtype.hasobject:
        raise SecurityError("refused a numpy array that is not of numbers or fixed-size strings")
    if type(shape) is not tuple or len(shape) > 32 or not _INT.issuperset(map(type, shape)):
        raise SecurityError("refused a numpy array: its shape is not a tuple of lengths")
    if shape and min(shape) < 0:
        raise SecurityError("refused a numpy array: its shape is not a tuple of lengths")
    if nbytes != math.prod(shape) * dtype.itemsize:
        raise SecurityError("refused a numpy array: its bytes do not fill its shape")
    if not nbytes:
        # Whoever goes through the rows of an array of shape (10**9, 0) takes time and memory for each.
        charge(math.prod(length or 1 for length in shape))


def _array_from_buffer(
    charge: Charge, buffer: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
) -> np.ndarray:
    if type(buffer) not in (bytes, bytearray, memoryview):
        raise SecurityError("refused a numpy array: its contents are not bytes")
    _check_layout(charge, dtype, shape, len(buffer))
    if type(buffer) is bytes:  # arrays that arrive can be written to
        charge(len(buffer))
        buffer = bytearray(buffer)
    array: np.ndarray = np.ndarray(shape, dtype, buffer, order="F" if order == "F" else "C")
    if axes is None:
        return array
    if type(axes) is not tuple or sorted(axes) != [*range(len(shape))]:
        raise SecurityError("refused a numpy array: its axes are not those of its shape")
    return array.transpose(axes)


def _empty_array(_charge: Charge, cls: Any, shape: Any, typecode: Any) -> np.ndarray:
    if cls is not np.ndarray:
        raise SecurityError("refused a subclass of numpy.ndarray")
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _array_state(charge: Charge, array: np.ndarray, state: Any) -> None:
    if type(state) is not tuple:
        raise SecurityError("refused the state of a numpy array")
    _version, shape, dtype, is_fortran, contents = state
    if type(contents) is not bytes:
        raise SecurityError("refused a numpy array: its contents are not bytes")
    _check_layout(charge, dtype, shape, len(contents))
    charge(len(contents))
    array.__setstate__((1, shape, dtype, is_fortran, contents))


def _scalar(charge: Charge, dtype: Any, contents: Any) -> Any:
    if isinstance(dtype, np.dtype):  # what else it is, is refused below
        charge(2 * dtype.itemsize)  # `[()]` copies, and its copy is the scalar's
    return _array_from_buffer(charge, contents, dtype, (), "C")[()]


def _numpy_rules() -> dict[tuple[str, str], Callable[[], Any]]:
    rules: dict[tuple[str, str], Callable[[], Any]] = {
        ("numpy", "dtype"): lambda: Rule(call=_make_dtype, restore=_dtype_state),
        ("numpy", "ndarray"): lambda: np.ndarray,
    }
    for core in ("numpy.core", "numpy._core"):  # numpy 1 and numpy 2
        rules[core + ".numeric", "_frombuffer"] = lambda: Rule(call=_array_from_buffer, charges=True)
        rules[core + ".multiarray", "_reconstruct"] = lambda: Rule(
            call=_empty_array, restore=_array_state, charges=True
        )
        rules[core + ".multiarray", "scalar"] = lambda: Rule(call=_scalar, charges=True)
    names = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
    names += ["float16", "float32", "float64", "complex64", "complex128"]
    for name in names:
        rules["numpy", name] = partial(_load, "numpy", name)
    for name in ("bool", "bool_"):
        rules["numpy", name] = lambda: np.bool_
    return rules


#: Charged for the time that the check takes at least.
_SPARSE_CHECK = 1 << 14

# scipy: compiled code trusts the indices of a sparse matrix, so they are checked before anybody sees it.


def _sparse_state(_charge: Charge, matrix: Any, state: Any) -> None:
    _plain_state(matrix, {key: state[key] for key in ("_shape", "data", "indices", "indptr")})


def _check_sparse(charge: Charge, matrix: Any) -> None:
    arrays = matrix.data, matrix.indices, matrix.indptr
    if not all(type(array) is np.ndarray and array.ndim == 1 for array in arrays):
        raise SecurityError("refused a sparse matrix: its parts are not one-dimensional arrays")
    # To look at all of it takes time, and the same arrays may be in many matrices.
    charge(_SPARSE_CHECK + sum(array.nbytes for array in arrays))
    if arrays[0].dtype.kind not in "biufc" or any(array.dtype.kind != "i" for array in arrays[1:]):
        raise SecurityError("refused a sparse matrix: it has values or indices that are not numbers")
    if any(np.may_share_memory(a, b) for a, b in zip(arrays, (*arrays[1:], arrays[0]), strict=True)):
        raise SecurityError("refused a sparse matrix: its parts share their memory")
    shape = matrix._shape
    if type(shape) is not tuple or len(shape) != 2 or not all(type(n) is int and n >= 0 for n in shape):
        raise SecurityError("refused a sparse matrix: its shape is not two lengths")
    # scipy looks at the differences, which overflow.
    if (matrix.indptr[1:] < matrix.indptr[:-1]).any():
        raise SecurityError("refused a sparse matrix: its index pointers do not increase")
    try:
        matrix.check_format(full_check=False)
        if matrix.format == "csc":
            _check_vocabulary(matrix)
        matrix.check_format(full_check=True)
    except OutsideVocabulary:
        raise
    except Exception as error:
        raise SecurityError(f"refused a sparse matrix: {error}") from error


def _check_vocabulary(matrix: Any) -> None:
    """Tell documents of another vocabulary, a usual mistake, from a malformed matrix, which ends the
    connection."""
    outside = (matrix.indices < 0) | (matrix.indices >= matrix.shape[0])
    if outside.any():
        place = int(outside.argmax())
        document = int(np.searchsorted(matrix.indptr, place, side="right")) - 1
        raise OutsideVocabulary(
            f"document {document}: term id {matrix.indices[place]} is outside the vocabulary of "
            f"{matrix.shape[0]} terms"
        )


def _sparse(name: str) -> Rule:
    cls = _load("scipy.sparse", name)
    return Rule(
        new=lambda _charge: cls.__new__(cls),
        restore=_sparse_state,
        finish=_check_sparse,
        holds=True,
        charges=True,
    )


# Python's own.


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise SecurityError("refused to encode anything but bytes written as text")
    return text.encode("latin-1")


def _make_bytes(cls: Callable[[bytes], Any], contents: Any = b"") -> Any:
    if type(contents) is not bytes:  # a number would be a size to allocate
        raise SecurityError("refused to make bytes of anything but bytes")
    return cls(contents)


def _make_ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    if items != ():  # its items follow by themselves
        raise SecurityError("refused to make an OrderedDict of anything")
    return OrderedDict()


def _make_defaultdict(factory: Any = None) -> defaultdict[Any, Any]:
    """One that makes what gensim's and the usual ones make."""
    if type(factory) is Rule:
        factory = factory.gathers
    if factory not in _FACTORIES:
        raise SecurityError("refused a defaultdict: it may make only numbers, strings and collections")
    return defaultdict(factory)


_FACTORIES = (None, int, float, bool, str, list, dict, tuple, set)


def _make_complex(real: Any, imaginary: Any) -> complex:
    return complex(float(real), float(imaginary))


def _uri_state(uri: Any, state: Any) -> None:
    protocol, name, socket_name, host, port = state
    if protocol != "PYRO" or type(name) is not str or socket_name is not None:
        raise SecurityError("refused a Pyro URI that does not name one object on one host")
    if type(host) is not str or type(port) is not int:
        raise SecurityError("refused a Pyro URI without a host and a port")
    uri.__setstate__((protocol, name, None, host, port))


def _uri() -> Rule:
    return Rule(new=lambda: Pyro4.core.URI.__new__(Pyro4.core.URI), restore=_uri_state)


def _python_rules() -> dict[tuple[str, str], Callable[[], Any]]:
    rules: dict[tuple[str, str], Callable[[], Any]] = {
        ("_codecs", "encode"): lambda: Rule(call=_encode),
        ("zlib", "adler32"): lambda: zlib.adler32,
        ("collections", "OrderedDict"): lambda: Rule(call=_make_ordered, holds=True),
        ("collections", "defaultdict"): lambda: Rule(call=_make_defaultdict, holds=True),
        ("collections", "Counter"): lambda: Rule(gathers=Counter),
    }
    for module in ("builtins", "__builtin__"):  # protocol 2 spells it as Python 2 did
        rules[module, "set"] = lambda: Rule(gathers=set)
        rules[module, "frozenset"] = lambda: Rule(gathers=frozenset)
        rules[module, "bytes"] = lambda: Rule(call=partial(_make_bytes, bytes))
        rules[module, "bytearray"] = lambda: Rule(call=partial(_make_bytes, bytearray))
        rules[module, "complex"] = lambda: Rule(call=_make_complex)
        for value in (int, float, bool, str, list, dict, tuple):
            rules[module, value.__name__] = partial(_identity, value)
    rules["__builtin__", "long"] = partial(_identity, int)
    rules["__builtin__", "unicode"] = partial(_identity, str)
    return rules


def _identity(value: Any) -> Any:
    return value


def _exception_rules() -> dict[tuple[str, str], Callable[[], Any]]:
    rules: dict[tuple[str, str], Callable[[], Any]] = {}
    for (module, name), cls in _EXCEPTIONS.items():
        rule = Rule(call=partial(_make_exception, cls), restore=_exception_state)
        rules[module, name] = partial(_identity, rule)
        if module == "builtins":
            rules["exceptions", name] = partial(_identity, rule)
    return rules


_EXCEPTIONS = _exception_types()
_ALLOWED: dict[tuple[str, str], Callable[[], Any]] = {
    **_python_rules(),
    **_exception_rules(),
    **_numpy_rules(),
    ("Pyro4.core", "URI"): _uri,
}
for _name in ("csc_matrix", "csc_array", "csr_matrix", "csr_array"):
    _ALLOWED[f"scipy.sparse._{_name[:3]}", _name] = partial(_sparse, _name)
for _module, _name, *_lengths in (
    ("gensim.corpora.dictionary", "Dictionary"),
    ("gensim.corpora.hashdictionary", "HashDictionary", "id_range"),
    ("gensim.utils", "FakeDict", "num_terms"),
    ("gensim.models.ldamodel", "LdaState"),
    ("gensim.models.lsimodel", "Projection"),
):
    _ALLOWED[_module, _name] = partial(_bare_instances_of, _module, _name, *_lengths)
_resolved: dict[tuple[str, str], Any] = {}
