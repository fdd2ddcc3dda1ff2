"""The command line's frame: finding commands, help, errors, exit codes, encodings."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest

from cogvlm2_lite import __version__
from cogvlm2_lite.cli.console import Console, has_desktop
from cogvlm2_lite.cli.main import COMMANDS, Command, load_command, main
from cogvlm2_lite.errors import CheckpointError, UsageError
from tests.helpers.scripted_model import Terminal

Capture = pytest.CaptureFixture[str]


def python(code: str, *, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    environ = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environ, check=False
    )


def say(argv: Sequence[str]) -> int:
    Console().line(" ".join(argv))
    return 7


def fail(argv: Sequence[str]) -> int:
    raise CheckpointError("The folder is damaged.", hint="Get it again.")


def interrupt(argv: Sequence[str]) -> int:
    raise KeyboardInterrupt


def run_out(argv: Sequence[str]) -> int:
    raise MemoryError


def crash(argv: Sequence[str]) -> int:
    raise RuntimeError("a fault")


def fill_the_disk(argv: Sequence[str]) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "page.html")


FAKES = [
    Command(name=name, target=f"{__name__}:{name}", summary=f"to {name}")
    for name in ("say", "fail", "interrupt", "run_out", "crash", "fill_the_disk")
]


def test_help_and_version_load_nothing_heavy() -> None:
    found = python(
        "import sys\n"
        "from cogvlm2_lite.cli.main import main\n"
        "assert main(['--help']) == main(['--version']) == main([]) == 0\n"
        "heavy = {'torch', 'numpy', 'PIL', 'tokenizers', 'transformers', 'psutil', 'quantize'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    assert found.stderr == b""
    assert found.returncode == 0
    assert b"usage: cogvlm2-lite" in found.stdout


@pytest.mark.parametrize("command", [c.name for c in COMMANDS])
def test_the_help_of_a_command_loads_no_torch(command: str) -> None:
    found = python(
        "import sys\n"
        "from cogvlm2_lite.cli.main import main\n"
        "try:\n"
        f"    main(['{command}', '--help'])\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules\n"
    )
    assert found.stderr == b""
    assert found.returncode == 0
    assert f"cogvlm2-lite {command}".encode() in found.stdout


def test_help_lists_every_command(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert command.name in shown
        assert command.summary in shown


def test_no_arguments_print_the_help_where_there_is_no_desktop(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cogvlm2_lite.cli.main.has_desktop", lambda: False)
    main([])
    first = capsys.readouterr().out
    main(["-h"])
    assert capsys.readouterr().out == first


def test_no_arguments_open_the_window_on_a_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Sequence[str]] = []

    def gui(argv: Sequence[str]) -> int:
        opened.append(argv)
        return 0

    monkeypatch.setattr("cogvlm2_lite.cli.main.has_desktop", lambda: True)
    monkeypatch.setattr("gui.command.main", gui)
    assert main([]) == 0
    assert opened == [[]]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="X11")
def test_a_display_whose_server_has_ended_is_no_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1] - 6000
        displays = [f"127.0.0.1:{number}.0", "unknown form"]
        for display in displays:
            monkeypatch.setenv("DISPLAY", display)
            assert has_desktop(), display
    for display in ("", displays[0], ":65431", "unix:65431", "127.0.0.1:99999"):
        monkeypatch.setenv("DISPLAY", display)
        assert not has_desktop(), display
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert has_desktop()


def test_the_version_is_printed(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cogvlm2-lite {__version__}\n"


def test_every_row_of_the_table_leads_to_a_function() -> None:
    for command in COMMANDS:
        assert callable(load_command(command.name))


def test_a_command_gets_its_arguments_and_gives_the_exit_code(capsys: Capture) -> None:
    assert main(["say", "a", "b c"], commands=FAKES) == 7
    assert capsys.readouterr().out == "a b c\n"


def test_a_misspelt_command_is_answered_with_the_right_one(capsys: Capture) -> None:
    assert main(["quantise"]) == 2
    shown = capsys.readouterr().err
    assert "Unknown command 'quantise'." in shown
    assert "Did you mean quantize?" in shown


def test_an_unknown_option_is_refused(capsys: Capture) -> None:
    assert main(["--frobnicate"]) == 2
    assert "Unknown option '--frobnicate'" in capsys.readouterr().err


def test_an_error_of_the_user_is_two_lines_and_no_traceback(capsys: Capture) -> None:
    assert main(["fail"], commands=FAKES) == 1
    assert capsys.readouterr().err == "Error: The folder is damaged.\n  Get it again.\n"


def test_an_interrupt_is_one_short_line(capsys: Capture) -> None:
    assert main(["interrupt"], commands=FAKES) == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_lack_of_memory_is_one_sentence(capsys: Capture) -> None:
    assert main(["run_out"], commands=FAKES) == 1
    assert "Not enough memory" in capsys.readouterr().err


def test_a_full_disk_is_no_fault_of_the_program(capsys: Capture) -> None:
    assert main(["fill_the_disk"], commands=FAKES) == 1
    shown = capsys.readouterr().err
    assert "page.html can't be written: No space left on device." in shown
    assert "Traceback" not in shown


def test_a_fault_of_the_program_is_shown_whole_and_called_one(capsys: Capture) -> None:
    assert main(["crash"], commands=FAKES) == 70
    shown = capsys.readouterr().err
    assert "RuntimeError: a fault" in shown
    assert "cogvlm2-lite doctor" in shown


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk"])
def test_output_is_utf8_on_consoles_with_another_code_page(encoding: str) -> None:
    found = python(
        "from cogvlm2_lite.cli.main import main\nraise SystemExit(main(['命令😀']))",
        encoding=encoding,
    )
    assert found.returncode == 2
    assert "命令😀" in found.stderr.decode("utf-8")


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
def test_a_reader_that_leaves_the_pipe_is_no_error() -> None:
    code = "from cogvlm2_lite.cli.main import main\nraise SystemExit(main(['--help']))"
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert process.stderr == b""
    assert process.returncode == 1


def test_the_package_runs_as_a_module() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "cogvlm2_lite", "--version"], capture_output=True, check=False
    )
    assert found.stdout.split() == [b"cogvlm2-lite", __version__.encode()]


@pytest.mark.parametrize("argv", [["ask"], ["ask", "--jsno", "m", "q"], ["chat", "--image"]])
def test_mistakes_in_options_are_usage_errors(argv: list[str], capsys: Capture) -> None:
    assert main(argv) == 2
    message, hint = capsys.readouterr().err.splitlines()
    assert message.startswith("Error: ")
    assert message.endswith(".")
    assert hint.startswith("  ")


def test_options_are_not_abbreviated() -> None:
    with pytest.raises(UsageError, match="--js"):
        load_command("ask")(["m", "q", "--js"])


def test_control_characters_never_reach_the_terminal() -> None:
    out, err = Terminal(), Terminal()
    console = Console(out, err)
    console.line("a\x1b[31mb\x07c\td\x9b1m")
    console.error("x\x1b]0;title\x07y", "hint\r")
    console.heading("h\x1bi")
    assert out.getvalue().startswith("a[31mbc\td1m\n")
    assert "\x07" not in out.getvalue() + err.getvalue()
    assert "x]0;titley" in err.getvalue()


def test_status_is_shown_on_terminals_only_and_wiped_before_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("WT_SESSION", "x")
    out, err = Terminal(), Terminal()
    console = Console(out, err)
    console.status("working")
    console.line("done")
    assert err.getvalue() == "\r\x1b[Kworking\r\x1b[K"
    assert out.getvalue() == "done\n"


def test_no_color_and_pipes_get_no_escape_sequences(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    Console().status("working")
    Console().remark("remark")
    assert capsys.readouterr().err == "remark\n"
    monkeypatch.setenv("NO_COLOR", "1")
    out, err = Terminal(), Terminal()
    console = Console(out, err)
    console.status("working")
    console.heading("heading")
    console.remark("remark")
    assert out.getvalue() + err.getvalue() == "heading\nremark\n"
