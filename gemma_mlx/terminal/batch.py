"""The same question about each of many files: one that fails does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gemma_mlx.errors import GemmaError
from gemma_mlx.terminal import stdin
from gemma_mlx.terminal.answering import as_object, cut_note, figures
from gemma_mlx.terminal.failures import one_line, report
from gemma_mlx.terminal.output import Output, write_stdout
from gemma_mlx.terminal.safe import visible_line

if TYPE_CHECKING:
    from gemma_mlx.answer import Reply
    from gemma_mlx.gemma import Gemma
    from gemma_mlx.inputs.media import Media


@dataclass(frozen=True)
class Batch:
    """What to read and how to print it."""

    files: Sequence[str]
    kind: Literal["image", "audio"]
    """With "image", videos are taken for what they are."""
    output: Output
    max_tokens: int
    detail: int | None = None
    as_json: bool = False
    logprobs: bool = False
    named: bool = False
    """Print `path<TAB>answer`, one line per file, where there are several."""

    def __post_init__(self) -> None:
        stdin.check_one_reader(("FILE", self.files))

    def run(self, gemma: Gemma, answer: Callable[[Media], Reply]) -> None:
        """Prints the answer about each file; ends with exit code 1 if one of them failed."""
        from gemma_mlx.inputs.video import is_video

        failed = False
        for file in self.files:
            try:
                source = stdin.media_source(file)
                kind = "video" if self.kind == "image" and is_video(source) else self.kind
                part = {"type": kind, kind: source}
                media = gemma.prompts.prepare(part, self.detail)
                self.output.note(media.label)
                self.output.status(f"working on {file} ...")
                reply = answer(media)
            except GemmaError as error:
                failed = True
                self.output.clear_status()
                report(error, self.as_json, file=file)
            else:
                self._print(file, reply)
        if failed:
            sys.exit(1)

    def _print(self, file: str, reply: Reply) -> None:
        if self.as_json:
            self.output.clear_status()
            found = as_object(reply, thinking=False, logprobs=self.logprobs)
            write_stdout(one_line({"file": file, **found}) + "\n")
        else:
            text = reply.text.strip()
            if self.named and len(self.files) > 1:
                text = f"{visible_line(file)}\t{' '.join(text.split())}"
            self.output.answer(text)
            self.output.end_answer()
        if note := cut_note(reply, self.max_tokens):
            self.output.note(note)
        self.output.note(figures(reply))
