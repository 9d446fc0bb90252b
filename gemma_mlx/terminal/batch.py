"""The same question about each of many files: one that fails does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gemma_mlx.errors import GemmaError
from gemma_mlx.terminal import stdin
from gemma_mlx.terminal.answering import as_object, cut_note, figures
from gemma_mlx.terminal.failures import one_line, report
from gemma_mlx.terminal.journal import Journal, file_digest
from gemma_mlx.terminal.output import Output, UnwritableError, write_stdout
from gemma_mlx.terminal.progress import BatchProgress
from gemma_mlx.terminal.safe import visible_line
from gemma_mlx.terminal.sidecars import Sidecars

if TYPE_CHECKING:
    from gemma_mlx.answer import Reply


class Labelled(Protocol):
    """What a file was made into, with what a person is told about it."""

    @property
    def label(self) -> str: ...


@dataclass(frozen=True)
class _Work:
    """How each file is answered."""

    answer: Callable[[Any], Reply]
    prepare: Callable[[str | bytes], Labelled]
    journal: Journal | None
    progress: BatchProgress


@dataclass(frozen=True)
class Batch:
    """Which pictures and videos to read, and how to print what is said of each."""

    files: Sequence[str]
    output: Output
    max_tokens: int
    as_json: bool = False
    logprobs: bool = False
    thinking: bool = False
    named: bool = False
    """Print `path<TAB>answer`, one line per file, where there are several."""
    sidecars: Sidecars | None = None
    """Where answers go in place of stdout."""

    def __post_init__(self) -> None:
        stdin.check_one_reader(("FILE", self.files))

    def run(
        self,
        answer: Callable[[Any], Reply],
        prepare: Callable[[str | bytes], Labelled],
        journal: Journal | None = None,
    ) -> None:
        """Prints the answer about each file; ends with exit code 1 if one of them failed.

        `prepare` makes of a file what `answer` takes. Answers that are in `journal` are taken from there, new ones are
        kept in it before they are shown.
        """
        failed = 0
        with journal or nullcontext(), BatchProgress(self.output, len(self.files)) as progress:
            work = _Work(answer, prepare, journal, progress)
            for file in self.files:
                progress.begin(file)
                known = False
                try:
                    reply, known = self._reply(file, work)
                    with progress.hidden():
                        self._give(file, reply, known)
                except UnwritableError:
                    raise
                except GemmaError as error:
                    failed += 1
                    with progress.hidden():
                        report(error, self.as_json, file=file)
                progress.end(worked=not known)
        if failed:
            if len(self.files) > 1:
                self.output.note(f"{len(self.files) - failed:,} of {len(self.files):,} files done, {failed:,} failed")
            sys.exit(1)

    def _reply(self, file: str, work: _Work) -> tuple[Reply, bool]:
        """The answer about `file`, and whether it was known from the journal."""
        source = stdin.media_source(file)
        digest = file_digest(source) if work.journal is not None else ""
        if work.journal is not None and (found := work.journal.find(digest)) is not None:
            return found, True
        if self.sidecars is not None:
            self.sidecars.check(file)
        prepared = work.prepare(source)
        with work.progress.hidden():
            self.output.note(prepared.label)
        reply = work.answer(prepared)
        if work.journal is not None:
            work.journal.keep(digest, reply)
        return reply, False

    def _give(self, file: str, reply: Reply, known: bool) -> None:
        """Writes an answer where it belongs, and what is to say of it."""
        text = reply.text.strip()
        if self.thinking and not self.as_json and reply.thought:
            self.output.thought(reply.thought)
        place = self.sidecars.write(file, text) if self.sidecars is not None else None
        if self.as_json:
            found = as_object(reply, thinking=self.thinking, logprobs=self.logprobs)
            beside = {"sidecar": str(place)} if place is not None else {}
            write_stdout(one_line({"file": file, **beside, **found}) + "\n")
        elif place is None:
            if self.named and len(self.files) > 1:
                text = f"{visible_line(file)}\t{' '.join(text.split())}"
            self.output.answer(text)
            self.output.end_answer()
        if note := cut_note(reply, self.max_tokens):
            self.output.note(f"{file}: {note}" if len(self.files) > 1 else note)
        if not known:
            self.output.note(figures(reply))
