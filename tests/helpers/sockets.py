"""Watches a program and all its children for sockets that could leave the machine.

Two observers: an audit hook in every Python process, and, where strace can run, the system calls of
all processes, which sees libraries in C too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
_HOOK = """
import os, sys

def _watch(event, args):
    if event not in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind",
                     "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        return
    family = getattr(args[0], "family", None)
    if family is not None and family.name in ("AF_UNIX", "AF_NETLINK"):
        return
    with open(os.environ["WATCHED_SOCKETS"], "a") as told:
        told.write(f"{event} {args!r} in {sys.argv!r}\\n")

sys.addaudithook(_watch)
with open(os.environ["WATCHED_PROCESSES"], "a") as told:
    told.write(f"{os.getpid()} {sys.orig_argv!r}\\n")
"""
_LEAVES = re.compile(r"\b(connect|bind|sendto|sendmsg)\(.*sa_family=AF_INET")


class Watched:
    """What a program did.

    sockets    a line for each one that is not local to the machine
    processes  a line for each Python process that was watched
    traced     whether system calls were watched too
    """

    def __init__(self, done: subprocess.CompletedProcess[str], folder: Path, traced: bool) -> None:
        self.done, self.traced = done, traced
        self.processes = (folder / "processes").read_text().splitlines()
        found = (folder / "sockets").read_text().splitlines()
        if traced:
            lines = (folder / "calls").read_text(errors="replace").splitlines()
            found += [line for line in lines if _LEAVES.search(line)]
        self.sockets = found


def can_trace(folder: Path) -> bool:
    """Return whether strace is here and may watch its own child."""
    if shutil.which("strace") is None:
        return False
    command = ["strace", "-f", "--seccomp-bpf", "-o", str(folder / "tried"), "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def watch(command: Sequence[str], folder: Path, *, timeout_s: float = 180) -> Watched:
    """Run a Python command to its end, watching it and its children; `folder` takes the notes."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(_HOOK)
    (folder / "sockets").touch()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
        "WATCHED_SOCKETS": str(folder / "sockets"),
        "WATCHED_PROCESSES": str(folder / "processes"),
    }
    traced = can_trace(folder)
    tracer = (
        "strace", "-f", "--seccomp-bpf", "-e", "trace=connect,bind,sendto,sendmsg",
        "-o", str(folder / "calls"),
    )  # fmt: skip
    done = subprocess.run(
        [*(tracer if traced else ()), *command], env=environment, cwd=ROOT, check=False,
        capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    return Watched(done, folder, traced)
