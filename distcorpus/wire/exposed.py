"""Methods that others may call: what arrives for an argument is of the kind that the method says, or refused.

So no method has to be careful before it hashes, compares or prints an argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cache, wraps
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import Pyro4.core

_Exposed = TypeVar("_Exposed", bound=Callable[..., Any])

#: What stands for a kind on its way, besides itself.
_ALIKE: dict[Any, tuple[type, ...]] = {
    float: (float, int, np.floating, np.integer),
    int: (int, np.integer),
    bool: (bool, int, np.bool_),
    Iterable: (list, tuple, set, frozenset),
}


def expose(item: _Exposed) -> _Exposed:
    """Let others call a method, or all public methods that a class defines.

    Their parameters have type hints: classes, ``list[...]``, ``Iterable[...]``, ``dict[..., ...]``, unions of
    such, or ``Any`` where the method checks for itself. A call with other arguments raises TypeError, and the
    method does not run. As usual an integer will do for a ``float``, and numpy's scalars for Python's.
    """
    if not isinstance(item, type):
        return Pyro4.core.expose(_checked(item))
    for name, method in list(vars(item).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(item, name, _checked(method))
    return Pyro4.core.expose(item)


def _checked(method: Any) -> Any:
    signature = inspect.signature(method)

    @cache
    def hints() -> dict[str, Any]:  # only when it is called are all the names that they use defined
        return get_type_hints(method)

    @wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        _, *arguments = bound.arguments.items()  # without `self`
        for name, value in arguments:
            if not fits(value, hints()[name]):
                wanted = signature.parameters[name].annotation
                raise TypeError(f"{method.__name__}() takes {name} as {wanted}, not as {_kind_of(value)}")
        return method(*args, **kwargs)

    checked.checks_arguments = hints  # type: ignore[attr-defined]
    return checked


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what a type hint says.

    Raises
    ------
    TypeError
        The hint is of a form that `expose` does not know.
    """
    if hint is Any:
        return True
    if hint is None or hint is NoneType:
        return value is None
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    cls: Any = origin or hint
    if not inspect.isclass(cls):
        raise TypeError(f"expose does not know what {hint} is")
    kinds: Any = _ALIKE.get(cls, cls)
    if not isinstance(value, kinds):
        return False
    if cls is dict and parts:
        return _all_fit(value, parts[0]) and _all_fit(value.values(), parts[1])
    if cls in (list, Iterable):
        return all(_all_fit(value, part) for part in parts)
    if parts and cls is not np.ndarray:
        raise TypeError(f"expose does not know what {hint} is")
    return True


def _all_fit(values: Iterable[Any], hint: Any) -> bool:
    return hint is Any or all(fits(value, hint) for value in values)


def _kind_of(value: Any) -> str:
    kind = type(value)
    inside = " of something else" if kind in (list, tuple, set, frozenset, dict) else ""
    return f"a {kind.__name__}{inside}"
