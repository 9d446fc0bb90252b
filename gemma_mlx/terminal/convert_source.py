"""What SOURCE names, as a source to convert: a folder, or a model on the Hugging Face Hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_mlx.errors import UsageError
from gemma_mlx.other_formats import refuse_other_format
from gemma_mlx.terminal.output import Output

if TYPE_CHECKING:
    from convert.hub import HubModel
    from convert.source import Source
    from gemma_mlx.config import Config
    from gemma_mlx.drafter_config import DrafterConfig

ProgressBar = Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]]


@contextmanager
def opened(
    named: str,
    revision: str | None,
    low_disk: bool,
    destination: Path,
    written_bytes: Callable[[Config | DrafterConfig], int],
    output: Output,
    bar: ProgressBar,
) -> Iterator[Source]:
    """The source. One on the Hub is downloaded before, or with `low_disk` while it is read.

    `written_bytes` tells what a model will take at `destination`, for which there must be room beside the download.
    """
    refuse_other_format(named)
    if os.path.isdir(named):  # noqa: PTH112  # False also for a name that is too long
        for flag, given in (("--revision", revision is not None), ("--low-disk", low_disk)):
            if given:
                raise UsageError(f"{flag} has no effect on a folder; leave it out, or name a model on the Hub")
        from convert.source import read_source

        output.status("reading the headers ...")
        yield read_source(Path(named))
        return
    from convert.repository import named_repository

    found = named_repository(named)
    if found is None:
        raise UsageError(
            f"no model folder {named!r}; name a folder with a downloaded model, or google/gemma-4-12B-it to download it"
        )
    repository, at = found
    refuse_other_format(repository)
    if at is not None and revision is not None:
        raise UsageError(f"{named} names a revision, and --revision another one; leave one of them out")
    output.status(f"asking for {repository} ...")
    if low_disk:
        with _streamed(repository, at or revision, output) as source:
            yield source
    else:
        yield _downloaded(repository, at or revision, destination, written_bytes, output, bar)


@contextmanager
def _streamed(repository: str, revision: str | None, output: Output) -> Iterator[Source]:
    from convert.hub import download_text, find
    from convert.remote import remote_source

    model = find(repository, revision)
    with tempfile.TemporaryDirectory(prefix="gemma-mlx-") as folder:
        text = download_text(model, Path(folder))
        source = remote_source(model, text)
        output.note(
            f"{_title(model)}: converting {_size(sum(t.nbytes for t in source.tensors.values()))} as they arrive"
        )
        yield source


def _downloaded(
    repository: str,
    revision: str | None,
    destination: Path,
    written_bytes: Callable[[Config | DrafterConfig], int],
    output: Output,
    bar: ProgressBar,
) -> Source:
    from convert.disk_space import held_bytes, require_space
    from convert.hub import UnreachableError, download_text, download_weights, find, find_cached, missing_weights
    from convert.partial_folder import working_folder
    from convert.source import model_config, read_source

    try:
        model = find(repository, revision)
    except UnreachableError:
        cached = find_cached(repository, revision)
        if cached is None:
            raise
        output.say(f"the Hub cannot be reached; going on with {repository} as it was downloaded before: {cached}")
        return read_source(cached, repository, cached.name)
    text = download_text(model)
    missing = missing_weights(model, text)
    if missing:
        missing_bytes = sum(file.missing_bytes for file in missing)
        to_write = written_bytes(model_config(text)) - held_bytes(working_folder(destination))
        require_space({missing[0].blob.parent: missing_bytes, destination: to_write})
        count = f"{len(missing)} file{'s' if len(missing) > 1 else ''}"
        output.note(f"{_title(model)}: downloading {count}, {_size(missing_bytes)}, to {missing[0].blob.parent.parent}")
        with bar("downloading") as progress:
            download_weights(model, text, missing, progress or (lambda arrived, total: None))
    return read_source(text, repository, model.revision)


def _title(model: HubModel) -> str:
    return f"{model.repository} at commit {model.revision[:12]}"


def _size(count_bytes: int) -> str:
    from gemma_mlx.memory import readable

    return readable(count_bytes)
