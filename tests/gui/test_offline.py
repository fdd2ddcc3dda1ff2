"""No socket leaves the machine: whole sessions are watched, with everything they start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cogvlm2_lite.demo.shipped import checkpoint_folder
from tests.helpers.sockets import can_trace, watch

SIGN = checkpoint_folder().parent / "pictures" / "sign.png"
posix = pytest.mark.skipif(sys.platform == "win32", reason="of POSIX")


@posix
@pytest.mark.parametrize(
    "deed",
    [
        "import socket; socket.socket().connect_ex(('192.0.2.1', 9))",
        "import socket; socket.getaddrinfo('example.invalid', 80)",
        "import subprocess, sys; subprocess.run([sys.executable, '-P', '-c', 'import socket; "
        'socket.socket(type=socket.SOCK_DGRAM).sendto(bytes(1), ("192.0.2.1", 9))\'])',
    ],
)
def test_the_watch_sees_what_leaves(tmp_path: Path, deed: str) -> None:
    deed = (
        "import socket; socket.setdefaulttimeout(0.1)\ntry:\n  " + deed + "\nexcept OSError: pass"
    )
    assert watch([sys.executable, "-c", deed], tmp_path / "watch").sockets


@posix
def test_the_trace_sees_what_no_hook_of_python_sees(tmp_path: Path) -> None:
    if not can_trace(tmp_path):
        pytest.skip("strace is not here or may not trace")
    deed = (  # sockaddr_in of port 9 at 192.0.2.1, by the C library
        "import ctypes, struct; libc = ctypes.CDLL(None); s = libc.socket(2, 2, 0)\n"
        "to = struct.pack('=HHI8x', 2, 9 << 8, 192 | 2 << 16 | 1 << 24)\n"
        "libc.connect(s, to, len(to))"
    )
    seen = watch([sys.executable, "-c", deed], tmp_path / "watch").sockets
    assert [line for line in seen if "connect(" in line and "192.0.2.1" in line]


@posix
def test_local_sockets_are_no_fault(tmp_path: Path) -> None:
    deed = "import socket; a, b = socket.socketpair(); a.sendmsg([b'x']); socket.socket(1).bind('')"
    assert watch([sys.executable, "-c", deed], tmp_path / "watch").sockets == []


@posix
@pytest.mark.slow
def test_a_whole_session_at_the_window_opens_no_socket_to_anywhere(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    command = ["-m", "tests.helpers.programs.window_session", str(tmp_path / "data"), str(results)]
    seen = watch([sys.executable, *command], tmp_path / "watch")
    assert seen.done.stdout == "4\n", seen.done.stderr
    assert {file.suffix for file in results.iterdir()} == {".md", ".html", ".json", ".png"}
    processes = "\n".join(seen.processes)
    for module in (
        "tests.helpers.programs.window_session",
        "cogvlm2_lite.worker.main",
        "gui.background.decoder",
        "doctor",
    ):
        assert module in processes, "each is watched"
    assert seen.sockets == []


@posix
@pytest.mark.slow
def test_a_question_on_the_command_line_opens_no_socket_to_anywhere(tmp_path: Path) -> None:
    command = ["-m", "cogvlm2_lite", "ask", "demo", str(SIGN), "What is written on the sign?"]
    seen = watch([sys.executable, *command], tmp_path / "watch")
    assert seen.done.returncode == 0, seen.done.stderr
    assert seen.done.stdout.strip()
    assert seen.sockets == []
