"""A checkpoint on the Hub as a source, without a copy of it on this disk: its bytes are converted as they arrive.

A safetensors header says where each tensor lies, and a server that knows HTTP ranges sends from there. Tensors are
converted in the order of their bytes, so that one answer serves for all that follow each other.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

from convert.hub import HubModel, metadata_of
from convert.source import Source, model_config, source_of
from convert.source_tensor import StoredTensor
from gemma_mlx.checkpoint import TensorInfo, header_length, join_headers, parse_header
from gemma_mlx.errors import CheckpointError

TRIES = 5
"""So often in a row a connection may end without one byte before we give up."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0


def remote_source(model: HubModel, text: Path) -> Source:
    """`model` as a source; its text side lies in the folder `text`.

    Headers are checked as those of files are. Raises CheckpointError for what `read_source` refuses, and where the
    server sends whole files only. Later a connection that fails for good is a ConnectionError.
    """
    config = model_config(text)
    infos: list[TensorInfo] = []
    files: dict[Path, RemoteFile] = {}
    identity = {"revision": model.revision}
    for name in model.weight_files(text):
        path, found = Path(model.repository) / name, metadata_of(model, name)
        file = files[path] = RemoteFile(model.url(name), found.size)
        try:
            length = header_length(path, found.size, file.read(0, min(8, found.size)))
            header = file.read(8, length)
        except ConnectionError as error:
            raise CheckpointError(str(error)) from None
        infos += parse_header(path, found.size, header)
        identity[name] = f"{found.size} bytes, etag {found.etag}, header {hashlib.sha256(header).hexdigest()}"

    @contextmanager
    def opened(info: TensorInfo) -> Iterator[RemoteFile]:
        files[info.file].seek(info.start)
        yield files[info.file]

    in_order = {name: StoredTensor(info, opened) for name, info in join_headers(text, infos).items()}
    source = source_of(text, config, in_order, identity, model.repository, model.revision)
    return replace(source, is_remote=True)


class RemoteFile:
    """A file on a server, read from any place on. A connection that ends early is opened again where it ended.

    Reading raises ConnectionError when that is of no use, and when the server does not send from a place on.
    """

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size = url, size
        self._place = 0
        """Of the next byte to be read."""
        self._arriving: Iterator[bytes] = iter(())
        self._arrived = b""

    def seek(self, place: int) -> None:
        """What is read next begins at `place`; nothing happens if it does so anyway."""
        if place != self._place:
            self._place, self._arrived, self._arriving = place, b"", iter(())

    def readinto(self, buffer: memoryview, /) -> int:
        if self._place >= self._size:
            return 0
        failures, why = 0, "it ended"
        while not self._arrived:
            try:
                self._arrived = next(self._arriving, b"")
            except HTTPError as error:
                if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
                    raise ConnectionError(f"{self._url} answered {error.response.status_code}") from None
                why = type(error).__name__
            if not self._arrived:
                if failures == TRIES:
                    raise ConnectionError(f"the connection to {constants.ENDPOINT} failed {TRIES} times ({why})")
                if failures:
                    time.sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (failures - 1)))
                failures += 1
                self._arriving = self._answer()
        count = min(len(buffer), len(self._arrived))
        buffer[:count], self._arrived = self._arrived[:count], self._arrived[count:]
        self._place += count
        return count

    def read(self, place: int, count: int) -> bytes:
        """`count` bytes from `place` on; fewer where the file ends."""
        self.seek(place)
        buffer = bytearray(count)
        left = memoryview(buffer)
        while len(left) and (arrived := self.readinto(left)):
            left = left[arrived:]
        return bytes(buffer[: count - len(left)])

    def _answer(self) -> Iterator[bytes]:
        headers = build_hf_headers() | {"Range": f"bytes={self._place}-", "Accept-Encoding": "identity"}
        with http_stream_backoff(
            "GET",
            self._url,
            headers=headers,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            max_retries=0,
            follow_redirects=True,
        ) as response:
            hf_raise_for_status(response)
            wanted = f"bytes {self._place}-{self._size - 1}/{self._size}"
            if response.status_code != 206 or response.headers.get("Content-Range") != wanted:
                raise ConnectionError(f"{constants.ENDPOINT} does not send parts of files; convert without --low-disk")
            yield from response.iter_raw()
