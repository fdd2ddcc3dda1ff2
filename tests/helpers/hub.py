"""A server on this computer that offers one folder as a model of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVISION = "4592a70ab2c9e0d6d4cb9cbf1b0f0e1d2c3b4a59"


@contextmanager
def served_hub(folder: Path) -> Iterator[str]:
    """Serve a folder under any model's name; the value is the endpoint for huggingface_hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._reply()

        def do_GET(self) -> None:
            self.wfile.write(self._reply())

        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def _reply(self) -> bytes:
            path = self.path.partition("?")[0]
            content = _listing(folder, tree="/tree/" in path)
            if not path.startswith("/api/"):
                content = (folder / path.rpartition("/")[2]).read_bytes()
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _listing(folder: Path, *, tree: bool) -> bytes:
    """Return what the Hub's interface says of the model: its revision, or its files."""
    files = sorted(folder.iterdir())
    if not tree:
        names = [{"rfilename": file.name} for file in files]
        return json.dumps({"id": "o/m", "sha": REVISION, "siblings": names}).encode()
    entries = [
        {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": REVISION} for f in files
    ]
    return json.dumps(entries).encode()
