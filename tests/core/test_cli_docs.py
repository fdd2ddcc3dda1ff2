"""docs/cli.md must say what the commands say."""

from __future__ import annotations

from cogvlm2_lite.cli.main import COMMANDS
from tools.write_cli_docs import PAGE, render


def test_every_command_has_a_section_in_the_manual() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"## cogvlm2-lite {command.name}\n" in page


def test_the_manual_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run python tools/write_cli_docs.py"
