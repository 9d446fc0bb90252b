"""A server that answers as the Hugging Face Hub does where a download asks it, and misbehaves as it is told to."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPOSITORY = "google/gemma-4-12B-it"
FIRST_COMMIT, SECOND_COMMIT = "1" * 40, "2" * 40
LARGE = ".safetensors"


@dataclass
class Hub:
    """What the server has, and how it behaves."""

    folder: Path
    """The files of the one repository, of every commit."""
    endpoint: str = ""
    commit: str = FIRST_COMMIT
    """Where the branch main stands."""
    refuses: tuple[int, str] | None = None
    """Status and X-Error-Code that everything is answered with."""
    refuses_files: tuple[int, str] | None = None
    """The same for files only."""
    knows_ranges: bool = True
    connections_that_end: int = 0
    """So many answers with a large file's bytes stop after `ends_after_bytes`."""
    ends_after_bytes: int = 0
    down_after_bytes: int | None = None
    """When so many bytes of large files were sent, no more are."""
    damaged: bool = False
    """Large files arrive with other bytes than their etags say."""
    sent_bytes: int = 0
    """Of large files."""
    ranges: list[str] = field(default_factory=list)
    """What was asked of large files."""
    asked_files: set[str] = field(default_factory=set)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        hub, path = self.hub, self.path.split("?")[0]
        if hub.refuses:
            return self._refuse(*hub.refuses)
        if found := re.fullmatch(rf"/api/models/{REPOSITORY}(?:/revision/(.+))?", path):
            if found[1] not in (None, "main", FIRST_COMMIT, SECOND_COMMIT):
                return self._refuse(404, "RevisionNotFound")
            return self._send_info(hub.commit if found[1] in (None, "main") else found[1])
        if found := re.fullmatch(rf"/{REPOSITORY}/resolve/([^/]+)/([^/]+)", path):
            hub.asked_files.add(found[2])
            if hub.refuses_files:
                return self._refuse(*hub.refuses_files)
            if not (hub.folder / found[2]).is_file():
                return self._refuse(404, "EntryNotFound")
            return self._send_file(found[1], hub.folder / found[2], with_body)
        return self._refuse(404, "RepoNotFound")

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_info(self, commit: str) -> None:
        files = [{"rfilename": path.name, "size": path.stat().st_size} for path in sorted(self.hub.folder.iterdir())]
        body = json.dumps({"id": REPOSITORY, "modelId": REPOSITORY, "sha": commit, "siblings": files}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, commit: str, path: Path, with_body: bool) -> None:
        hub, content, asked = self.hub, path.read_bytes(), self.headers.get("Range")
        large, start = path.name.endswith(LARGE), 0
        etag = hashlib.sha256(content).hexdigest()
        if hub.damaged and large:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if with_body and large:
            hub.ranges.append(asked or "")
        if asked and hub.knows_ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            self._send_body(content[start:], large)

    def _send_body(self, body: bytes, large: bool) -> None:
        if large and self.hub.connections_that_end:
            self.hub.connections_that_end -= 1
            body = body[: self.hub.ends_after_bytes]
            self.close_connection = True
        if large and self.hub.down_after_bytes is not None:
            body = body[: max(0, self.hub.down_after_bytes - self.hub.sent_bytes)]
            self.close_connection = True
        try:
            self.wfile.write(body)
        except ConnectionError:  # who asked has heard enough
            self.close_connection = True
        self.hub.sent_bytes += len(body) * large


class _Server(ThreadingHTTPServer):
    """Leaves nothing behind: a connection that its client keeps open would go on into the next test."""

    daemon_threads = False  # server_close waits for them

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), type("Answer", (_Answer,), {"hub": hub}))
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tells what went wrong here; a client that hung up is nothing wrong."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        for connection in tuple(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """`hub`, listening at its `endpoint`."""
    server = _Server(hub)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
