"""Models of the Hugging Face Hub: which commit a name stands for, which of its files a conversion needs, and getting
them. huggingface_hub does it, but for one thing: a download that was killed goes on where it was.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers, disable_progress_bars, logging

from convert.text_side import COPIED_FILES
from gemma_mlx.checkpoint import INDEX_FILE, weight_map
from gemma_mlx.errors import CheckpointError, GemmaError, UsageError

NEEDED_TEXT = ("config.json", *COPIED_FILES, INDEX_FILE)
"""Of the text side, what a conversion reads; next to it only *.safetensors, never a pickle or code."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class HubModel:
    """A model on the Hub at one commit."""

    repository: str
    """As google/gemma-4-12B-it."""
    revision: str
    """The commit's hash."""
    sizes: dict[str, int]
    """The bytes of each of its files that a conversion may need, by name."""

    def weight_files(self, text: Path) -> list[str]:
        """Those that the index in the folder `text` names, else all."""
        named = set(weight_map(text).values())
        return sorted(named or (name for name in self.sizes if name.endswith(".safetensors")))

    def url(self, name: str) -> str:
        return hf_hub_url(self.repository, name, revision=self.revision)


def find(repository: str, revision: str | None) -> HubModel:
    """The model as it is on the Hub now. Raises CheckpointError that says what to do about it."""
    with hub_errors(repository, revision):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    files = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = {name: size for name, size in files.items() if name in NEEDED_TEXT or _is_weights(name)}
    if not any(map(_is_weights, wanted)):
        raise CheckpointError(f"{repository} has no safetensors files; name google/gemma-4-12B-it or one made of it")
    if "config.json" not in wanted:
        raise CheckpointError(f"{repository} has no config.json; name google/gemma-4-12B-it or one made of it")
    assert info.sha is not None
    return HubModel(repository, info.sha, wanted)


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors") and "/" not in name


def find_cached(repository: str, revision: str | None) -> Path | None:
    """The folder where an earlier download of it lies; None where there is none. Does not use the network."""
    try:
        patterns = [*NEEDED_TEXT, "*.safetensors"]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True))
    except (OSError, ValueError):
        return None


def download_text(model: HubModel, folder: Path | None = None) -> Path:
    """Everything but the weights, into `folder` or else the cache; the folder where it lies."""
    with hub_errors(model.repository, model.revision):
        paths = [
            Path(hf_hub_download(model.repository, name, revision=model.revision, local_dir=folder))
            for name in model.sizes
            if not _is_weights(name)
        ]
    return paths[0].parent


@dataclass(frozen=True)
class Missing:
    """A weight file that is not in the cache yet."""

    name: str
    size: int
    etag: str
    """The sha256 of the file in hex, as the Hub has it of large files."""
    blob: Path
    """Where the cache keeps it when it is whole."""

    @property
    def part(self) -> Path:
        """Where it grows."""
        return self.blob.with_name(f"{self.etag}.gemma-mlx-part")

    @property
    def missing_bytes(self) -> int:
        return self.size - (self.part.stat().st_size if self.part.exists() else 0)


def missing_weights(model: HubModel, text: Path) -> list[Missing]:
    """What `download_weights` would have to get."""
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model.repository, repo_type="model") / "blobs"
    missing = []
    with hub_errors(model.repository, model.revision):
        for name in model.weight_files(text):
            found = hf_hub_download(model.repository, name, revision=model.revision, dry_run=True)
            if found.will_download:
                file = metadata_of(model, name)
                missing.append(Missing(name, file.size, file.etag, blobs / file.etag))
    return missing


@dataclass(frozen=True)
class FileMetadata:
    """What the Hub says of a file."""

    size: int
    etag: str


def metadata_of(model: HubModel, name: str) -> FileMetadata:
    """Raises CheckpointError where the Hub does not say both."""
    with hub_errors(model.repository, model.revision):
        found = get_hf_file_metadata(model.url(name), headers=build_hf_headers())
    if found.etag is None or found.size is None or not re.fullmatch(r"[\w.-]+", found.etag):
        raise CheckpointError(f"{constants.ENDPOINT} does not say what {name} is; download it by other means")
    return FileMetadata(found.size, found.etag)


def download_weights(model: HubModel, text: Path, missing: list[Missing], progress: Progress) -> None:
    """Afterwards all weights are in the cache beside `text`. `progress` is told (arrived, all) bytes of the missing.

    Goes on where an earlier download, of this or another process, ended. Raises CheckpointError where the Hub or the
    disk fails; what has arrived is kept.
    """
    total, before = sum(file.size for file in missing), 0
    with hub_errors(model.repository, model.revision):
        for file in missing:
            _download(model, file, lambda arrived, before=before: progress(before + arrived, total))  # type: ignore[misc]
            before += file.size
        for name in model.weight_files(text):
            hf_hub_download(model.repository, name, revision=model.revision)  # finds the blob, and names it


def _download(model: HubModel, file: Missing, progress: Callable[[int], None]) -> None:
    file.part.parent.mkdir(parents=True, exist_ok=True)
    with file.part.open("ab") as stream:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"another process is downloading {file.name}; wait for it") from None
        progress(stream.tell())
        counted = cast("BinaryIO", _Counted(stream, progress))
        http_get(
            model.url(file.name),
            counted,
            resume_size=stream.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
        )
        stream.flush()
        os.fsync(stream.fileno())
        if len(file.etag) == 64 and _sha256(file.part) != file.etag:
            file.part.unlink()
            raise CheckpointError(f"{file.name} arrived with other bytes than the Hub has; run the same command again")
        file.part.replace(file.blob)


class _Counted:
    """A stream that says how far it has come, with what `http_get` asks of one."""

    def __init__(self, stream: BinaryIO, progress: Callable[[int], None]) -> None:
        self._stream, self._progress = stream, progress
        self.seek, self.tell, self.truncate = stream.seek, stream.tell, stream.truncate

    def write(self, data: bytes) -> int:
        count = self._stream.write(data)
        self._progress(self._stream.tell())
        return count


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def hub_errors(repository: str, revision: str | None) -> Iterator[None]:
    """What the Hub refuses becomes a CheckpointError whose line ends with what to do."""
    disable_progress_bars()
    logging.set_verbosity_error()
    try:
        yield
    except GemmaError:
        raise
    except (OSError, ValueError, HTTPError) as error:
        # Where a file could not be asked for, the library says that there is no copy of it; why stands behind that.
        found = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        raise _explained(found, repository, revision) from None


def _explained(error: BaseException, repository: str, revision: str | None) -> GemmaError:
    page = f"{constants.ENDPOINT}/{repository}"
    match error:
        case GatedRepoError():
            return CheckpointError(
                f"{repository} is given to those who accept its licence: do that at {page}, then run hf auth login"
            )
        case RepositoryNotFoundError():
            return CheckpointError(
                f"{constants.ENDPOINT} has no model {repository} for you: check the name, or run hf auth login if it "
                "is private"
            )
        case RevisionNotFoundError():
            return CheckpointError(f"{repository} has no revision {revision!r}; its revisions are at {page}/commits")
        case HFValidationError():
            return UsageError(f"{repository!r} is no name of a model; write it as google/gemma-4-12B-it")
        case HfHubHTTPError():
            status = error.response.status_code
            step = "run hf auth login" if status in (401, 403) else "wait a little and run the same command again"
            return CheckpointError(f"{page} answered {status}; {step}")
        case HTTPError() | OfflineModeIsEnabled() | LocalEntryNotFoundError() | ConnectionError():
            return UnreachableError(
                f"cannot reach {constants.ENDPOINT}; check the network and run the same command again, or name a folder"
            )
        case OSError():
            return CheckpointError(
                f"the download of {repository} stopped: {error.strerror or error}; what has arrived is kept, and the "
                "same command goes on from there"
            )
        case _:
            raise error


class UnreachableError(CheckpointError):
    """The network is down, or not to be used."""
