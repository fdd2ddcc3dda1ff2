"""Pictures that outlive the program, within bounds, and never at the cost of an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.events import Finished, ImageEncoded
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.sampling import Sampling
from tests.helpers.answers import picture
from tests.helpers.folders import talking_folder

ONE_PICTURE = 2 * 2 * 2 * 12 * 32 * 4
"""Keys and values, layers, heads, tokens, head_dim, float32."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_folder(tmp_path_factory.mktemp("models") / "tiny")


def start(
    folder: Path, store: Path, *, rope: RopeMode = RopeMode.REFERENCE, limit: int = 1 << 20
) -> Model:
    """A fresh start of the program."""
    return open_model(
        folder,
        compute=choose_compute("cpu", "float32"),
        budgets=[DeviceBudget(device="cpu", in_ram=True, device_bytes=1 << 30)],
        rope=rope,
        pictures=(store, limit),
    )


def ask(model: Model, seed: int = 1) -> tuple[bool, str]:
    """Ask about a picture; says whether it was known, and the answer."""
    events = list(model.answer("What?", picture(seed), sampling=Sampling(max_new_tokens=8)))
    encoded = next(event for event in events if isinstance(event, ImageEncoded))
    end = events[-1]
    assert isinstance(end, Finished)
    return encoded.reused, end.text


def test_a_picture_is_known_after_a_restart_and_answers_the_same(
    folder: Path, tmp_path: Path
) -> None:
    first = ask(start(folder, tmp_path))
    second = ask(start(folder, tmp_path))
    assert (first[0], second[0]) == (False, True)
    assert first[1] == second[1]


def test_another_rope_mode_does_not_take_the_stored_numbers(folder: Path, tmp_path: Path) -> None:
    ask(start(folder, tmp_path))
    assert not ask(start(folder, tmp_path, rope=RopeMode.EXACT))[0]


@pytest.mark.parametrize("damage", ["truncate", "garbage", "empty", "other"])
def test_a_damaged_file_is_thrown_away(folder: Path, tmp_path: Path, damage: str) -> None:
    expected = ask(start(folder, tmp_path))[1]
    (file,) = tmp_path.glob("*.safetensors")
    content = file.read_bytes()
    file.write_bytes(
        {
            "truncate": content[:-10],
            "garbage": b"\xff" * 100,
            "empty": b"",
            "other": content.replace(b'"keys.0"', b'"kexs.0"'),
        }[damage]
    )
    assert ask(start(folder, tmp_path)) == (False, expected)
    assert ask(start(folder, tmp_path)) == (True, expected)


def test_the_folder_stays_within_its_bound(folder: Path, tmp_path: Path) -> None:
    limit = int(2.5 * (ONE_PICTURE + 400))
    for seed in (1, 2, 1, 3):
        ask(start(folder, tmp_path, limit=limit), seed)
    held = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert ONE_PICTURE < held <= limit
    # The second picture was used longest ago.
    assert ask(start(folder, tmp_path, limit=limit), 1)[0]
    assert ask(start(folder, tmp_path, limit=limit), 3)[0]


def test_a_folder_that_cannot_be_written_changes_nothing(folder: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert ask(start(folder, blocked))[1] == ask(start(folder, tmp_path / "other"))[1]
