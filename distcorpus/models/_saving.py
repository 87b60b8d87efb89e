"""What our models are as files, pickles and copies: gensim's own form, so that either class reads the
other's.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from distcorpus.models._cluster import Cluster

logger = logging.getLogger(__name__)
_naming = threading.RLock()


class Saved:
    """Mixed into a subclass of one of gensim's models.

    Attributes
    ----------
    gensims_class : type
        gensim's class of the model.
    own_options : dict
        The attributes that it has beyond gensim's, with the values of a model that gensim saved.
    """

    gensims_class: ClassVar[Any]
    own_options: ClassVar[dict[str, Any]]
    ns_conf: Any
    distributed: Any
    dispatcher: Any

    def _cluster(self) -> Cluster | None:
        """Return where the model's cluster is looked for; None where it is not to be used."""
        if not self.distributed or os.environ.get("DISTCORPUS_DISTRIBUTED", "1") == "0":
            return None
        found: Cluster | None = self.dispatcher
        return found

    def __getstate__(self) -> dict[str, Any]:
        attributes = {name: value for name, value in vars(self).items() if name != "_training_log"}
        options = {name: attributes.pop(name) for name in self.own_options}
        if callable(options["progress"]):  # functions cannot be saved
            options["progress"] = True
        options["client"] = None  # a connection
        options["class"] = f"{type(self).__module__}:{type(self).__qualname__}"
        return {**attributes, "dispatcher": None, "distcorpus_options": options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        attributes = dict(state)
        options = {**self.own_options, **attributes.pop("distcorpus_options", {})}
        options.pop("class", None)
        self.__dict__.update(attributes)
        self.__dict__.update(options)
        self.dispatcher = Cluster(self.ns_conf) if self.__dict__.get("distributed") else None

    def as_gensim(self) -> Any:
        """Return the same model as one of gensim's own class; the two share their arrays."""
        plain = self.gensims_class.__new__(self.gensims_class)
        plain.__dict__.update(self.__getstate__())
        return plain

    def save(self, fname: Any, *args: Any, **kwargs: Any) -> None:
        """Save the model in gensim's format: gensim reads it, with or without this package. Arguments as in
        gensim.
        """
        with _under_its_name(self.gensims_class):
            self.as_gensim().save(fname, *args, **kwargs)

    @classmethod
    def load(cls, fname: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model that was saved by this class, a subclass, or by gensim's. Arguments as in gensim.

        A model of a subclass is one again, where the class can be imported.
        """
        with _under_its_name(cls.gensims_class):
            loaded = super().load(fname, *args, **kwargs)  # type: ignore[misc]
        if isinstance(loaded, cls):
            return loaded
        kind = _class_of(loaded, cls)
        model = kind.__new__(kind)
        model.__setstate__(loaded.__dict__)
        return model


@contextmanager
def _under_its_name(gensims_class: Any) -> Iterator[None]:
    """Let files be of gensim's class, also where a program has put ours in its place in its module."""
    module, name = sys.modules[gensims_class.__module__], gensims_class.__name__
    with _naming:
        there = getattr(module, name)
        setattr(module, name, gensims_class)
        try:
            yield
        finally:
            setattr(module, name, there)


def _class_of(loaded: Any, cls: Any) -> Any:
    """Return the subclass of `cls` that a loaded model was of when it was saved, or `cls`."""
    name = vars(loaded).get("distcorpus_options", {}).get("class", "")
    module, _, qualified = name.partition(":")
    if not module or module.startswith("distcorpus."):
        return cls
    try:
        kind: Any = importlib.import_module(module)
        for part in qualified.split("."):
            kind = getattr(kind, part)
    except (ImportError, AttributeError) as error:
        logger.warning(
            "the model was saved as a %s, which cannot be imported (%s): it is a %s now", name, error, cls
        )
        return cls
    return kind if isinstance(kind, type) and issubclass(kind, cls) else cls


def save_whole(model: Any, path: str) -> None:
    """Save a model such that there is a whole one at any moment, also where this process is killed.

    The file that tells where a training goes on is the last to be put in place; a training that goes on uses
    nothing of the others.
    """
    folder, name = os.path.split(os.path.abspath(path))
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as new:
        model.save(os.path.join(new, name))
        for file in sorted(os.listdir(new), key=lambda file: file == name):
            os.replace(os.path.join(new, file), os.path.join(folder, file))
