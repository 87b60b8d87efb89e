"""Whether a class still does what a library's own class does, or a subclass has a say in it."""

from __future__ import annotations

from collections.abc import Collection


def is_inherited(kind: type, methods: Collection[str], packages: tuple[str, ...]) -> bool:
    """Return whether all that a class has of some methods is of these packages.

    Parameters
    ----------
    kind : type
    methods : collection of str
        The names of those that decide what its documents are.
    packages : tuple of str
    """
    for cls in kind.__mro__:
        for name in vars(cls).keys() & set(methods):
            # Of a compiled method not even the module is known.
            modules = cls.__module__, getattr(vars(cls)[name], "__module__", None) or cls.__module__
            if not all(module.partition(".")[0] in packages for module in modules):
                return False
    return True
