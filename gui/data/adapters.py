"""The adapters that are known for each model, and which of them is used. No Qt here.

They are saved as one setting, and no file is looked at: an adapter on a disk that is not connected
now stays known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.weights.adapter_choice import BASE, AdapterChoice
from gui.data.settings import Preferences

_SETTING = "adapters"
_MOST = 100
"""Adapters of all models that are remembered."""
_LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True)
class _Known:
    """An adapter of a model. used: by the answers of the window"""

    model: Path
    name: str
    folder: Path
    used: bool = False

    @property
    def choice(self) -> AdapterChoice:
        return AdapterChoice(name=self.name, folder=self.folder)


class KnownAdapters:
    """The adapters in the settings, those used last first."""

    def __init__(self, settings: Preferences) -> None:
        self._settings = settings

    def of(self, model: Path) -> list[AdapterChoice]:
        """Return the adapters of a model."""
        return [known.choice for known in self._read() if known.model == model]

    def used(self, model: Path) -> AdapterChoice | None:
        """Return the adapter that a model's answers use; None: none."""
        found = (k.choice for k in self._read() if k.model == model and k.used)
        return next(found, None)

    def choice(self, model: Path, folder: Path) -> AdapterChoice:
        """Return a known adapter, or an unknown one with a name that no other has."""
        known = self.of(model)
        found = next((choice for choice in known if choice.folder == folder), None)
        if found is not None:
            return found
        name, number = _name(folder), 2
        taken = {BASE, *(choice.name.lower() for choice in known)}
        free = name
        while free.lower() in taken:
            free, number = f"{name} {number}", number + 1
        return AdapterChoice(name=free, folder=folder)

    def use(self, model: Path, choice: AdapterChoice | None) -> None:
        """Use an adapter of a model, which is known then, or none."""
        known = [replace(k, used=False) if k.model == model else k for k in self._read()]
        if choice is not None:
            known = [k for k in known if (k.model, k.folder) != (model, choice.folder)]
            used = _Known(model=model, name=choice.name, folder=choice.folder, used=True)
            known.insert(0, used)
        self._write(known)

    def forget(self, model: Path, choice: AdapterChoice) -> None:
        """Remove an adapter from the list. Its files stay."""
        self._write([k for k in self._read() if (k.model, k.folder) != (model, choice.folder)])

    def _read(self) -> list[_Known]:
        known = []
        for line in self._settings.get(_SETTING):
            try:
                model, name, folder, used = json.loads(line)
                entry = _Known(
                    model=Path(model), name=str(name), folder=Path(folder), used=used is True
                )
            except (ValueError, TypeError):  # somebody edited the file
                continue
            known.append(entry)
        return known

    def _write(self, known: list[_Known]) -> None:
        lines = [json.dumps([str(k.model), k.name, str(k.folder), k.used]) for k in known[:_MOST]]
        self._settings.set(_SETTING, lines)


def _name(folder: Path) -> str:
    return escape_line(folder.name)[:_LONGEST_NAME] or "adapter"
