"""What our models are as files, pickles and copies: gensim's own form, so that either class reads the
other's.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any, ClassVar

from distcorpus.models._cluster import Cluster


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
    dispatcher: Any

    def __getstate__(self) -> dict[str, Any]:
        attributes = dict(self.__dict__)
        options = {name: attributes.pop(name) for name in self.own_options}
        if callable(options["progress"]):  # functions cannot be saved
            options["progress"] = True
        options["client"] = None  # a connection
        return {**attributes, "dispatcher": None, "distcorpus_options": options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        attributes = dict(state)
        options = {**self.own_options, **attributes.pop("distcorpus_options", {})}
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
        self.as_gensim().save(fname, *args, **kwargs)

    @classmethod
    def load(cls, fname: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model that was saved by this class or by gensim's. Arguments as in gensim."""
        loaded = super().load(fname, *args, **kwargs)  # type: ignore[misc]
        if isinstance(loaded, cls):
            return loaded
        model = cls.__new__(cls)
        model.__setstate__(loaded.__dict__)
        return model


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
