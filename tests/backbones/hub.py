"""A small hub on the loopback address, in the layout of the real one, for tests."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789012345678901234567890123456789"


class Hub:
    """Repositories by path, as `files["timm/name"]["model.safetensors"] = bytes`. `status`: what to answer instead;
    `cut_at`: after so many bytes the connection is closed, once; `lie`: the digest that is told is another one.
    `requests`: methods, paths and ranges that were asked for."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.status: int | None = None
        self.cut_at: int | None = None
        self.lie = False
        self.requests: list[tuple[str, str, str | None]] = []
        self.endpoint = ""


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            hub.requests.append((self.command, self.path, self.headers.get("Range")))
            if hub.status is not None:
                return self._fail(hub.status, {})
            repository, _, name = self.path.lstrip("/").partition("/resolve/main/")
            if "/resolve/" not in self.path:
                repository, _, name = self.path.lstrip("/").partition(f"/resolve/{COMMIT}/")
            name = name.partition("?")[0]
            if repository not in hub.files:
                return self._fail(404, {"X-Error-Code": "RepoNotFound"})
            if name not in hub.files[repository]:
                return self._fail(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return self._send(hub.files[repository][name], body=body)

        def _fail(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": "0"}).items():
                self.send_header(key, value)
            self.end_headers()

        def _send(self, content: bytes, *, body: bool) -> None:
            digest = hashlib.sha256(content + (b"other" if hub.lie else b"")).hexdigest()
            first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            self.send_response(206 if first else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{digest}"')
            self.send_header("Accept-Ranges", "bytes")
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            if not body:
                return
            if hub.cut_at is not None and first < hub.cut_at:
                self.wfile.write(content[first : hub.cut_at])
                hub.cut_at = None
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(content[first:])

    return Handler


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that serves until the end of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
