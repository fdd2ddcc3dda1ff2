"""The names of the models in the APIs: the base model, and one for each loaded adapter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cogvlm2_lite.errors import UsageError

_LATEST = "latest"


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that requests can name.

    name     in OpenAI's API: the base's name, or BASE:ADAPTER
    adapter  the adapter that answers; "": none does
    """

    name: str
    adapter: str = ""

    @property
    def ollama_name(self) -> str:
        """The name in Ollama's API, which always has a tag."""
        return self.name if ":" in self.name else f"{self.name}:{_LATEST}"


class ServedModels:
    """The base model and its adapters.

    Raises UsageError for an adapter called "latest": Ollama's clients call the base model so.
    """

    def __init__(self, base: str, adapters: Iterable[str] = ()) -> None:
        names = tuple(dict.fromkeys(adapters))
        if _LATEST in names:
            raise UsageError(
                "An adapter of a server can't be called {name!r}: that is the model's own tag in "
                "Ollama's API.",
                hint="Choose another name, as in --adapter mine=FOLDER",
                name=_LATEST,
            )
        self.base = ServedModel(name=base)
        self.adapted = tuple(ServedModel(name=f"{base}:{name}", adapter=name) for name in names)
        self._found = {one.name: one for one in self.all}
        self._found |= {f"{base}:{_LATEST}": self.base}

    @property
    def all(self) -> tuple[ServedModel, ...]:
        return (self.base, *self.adapted)

    @property
    def default(self) -> ServedModel:
        """The model of requests that name none: that of the first adapter, if there is one."""
        return self.all[1] if self.adapted else self.base

    def find(self, name: str | None) -> ServedModel | None:
        """Return the model that a request names; None: there is no such model.

        name  None or "": the request names none
        """
        return self._found.get(name) if name else self.default

    @property
    def listed(self) -> str:
        """The names, for an error."""
        return ", ".join(one.name for one in self.all)
