"""Transcripts on their way to stdout, into files and into events."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_mlx.errors import GemmaError, InputError
from gemma_mlx.home import home
from gemma_mlx.replace_file import replacing
from gemma_mlx.terminal import stdin
from gemma_mlx.terminal.failures import Interrupt, one_line, report
from gemma_mlx.terminal.output import Output, UnwritableError, write_stdout
from gemma_mlx.terminal.recordings import Recording
from gemma_mlx.terminal.transcribe_progress import TranscribeProgress, clock

if TYPE_CHECKING:
    from gemma_mlx.decoding.speculate import DraftMode
    from gemma_mlx.gemma import Gemma
    from gemma_mlx.tasks.journal import Journal
    from gemma_mlx.tasks.listening import Heard
    from gemma_mlx.tasks.subtitles import Format
    from gemma_mlx.tasks.transcript import Segment
    from gemma_mlx.tasks.transcription import Wanted
    from gemma_mlx.tasks.windows import Samples, Window


@dataclass(frozen=True)
class Writing:
    """What goes where: the transcript to stdout or into files, events to stdout."""

    format: Format
    as_json: bool
    to_stdout: bool


class TranscribeRun:
    """One command: the same model and the same question for all recordings."""

    def __init__(
        self,
        gemma: Gemma,
        wanted: Wanted,
        writing: Writing,
        output: Output,
        max_tokens: int,
        draft: DraftMode,
        logprobs: int,
    ) -> None:
        from gemma_mlx.tasks.listening import Listener
        from gemma_mlx.tasks.subtitles import TIMED
        from gemma_mlx.tasks.windows import best_aim

        self._gemma, self._writing, self._output = gemma, writing, output
        self._listener = Listener(gemma, wanted, max_tokens=max_tokens, draft=draft, logprobs=logprobs)
        self._aim = best_aim(
            miniature=gemma.miniature,
            prompt_tokens=self._listener.prompt_tokens,
            subtitles=writing.format in TIMED,
        )
        self._about = {"model": gemma.name, "miniature": gemma.miniature, "prompt": wanted.prompt}
        self._settings = {
            **vars(self._aim),
            "prompt": wanted.prompt,
            **asdict(gemma.identity),
            "max_tokens": max_tokens,
            "logprobs": logprobs,
        }

    def files(self, recordings: list[Recording], *, restart: bool) -> bool:
        """Transcribes each; whether all could be. One that fails does not stop the others."""
        from gemma_mlx.tasks.journal import Journal, recording_identity

        journals: list[Journal] = []
        failed = False
        screen_is_free = not (self._writing.to_stdout and self._output.answers_to_terminal)
        with TranscribeProgress(len(recordings), shown=self._output.shows_status and screen_is_free) as progress:
            for recording in recordings:
                try:
                    with ExitStack() as stack:
                        journal = None
                        path = recording.path
                        if path and os.path.isfile(path):  # noqa: PTH113  # a pipe can be read only once
                            identity = {**_identity(recording_identity, path), **self._settings}
                            journal = stack.enter_context(Journal(home() / "transcripts", identity, restart=restart))
                            journals.append(journal)
                        self._file(recording, journal, progress)
                except UnwritableError:
                    raise
                except GemmaError as error:
                    failed = True
                    self._event("failed", recording.name, {"error": str(error)})
                    report(error, self._writing.as_json, file=recording.name)
                progress.end()
        if not failed:
            for journal in journals:
                journal.remove()
        return not failed

    def live(self) -> None:
        """Transcribes the microphone until Ctrl-C; what was said until then is written.

        MicrophoneGoneError, after that, where it went away.
        """
        from gemma_mlx.terminal.capture.microphone import MicrophoneGoneError, microphone_blocks

        gone: list[MicrophoneGoneError] = []

        def blocks() -> Iterator[Samples]:
            try:
                yield from microphone_blocks(lambda: interrupt.asked)
            except MicrophoneGoneError as error:
                gone.append(error)

        with Interrupt() as interrupt:
            self._output.note("listening; Ctrl-C ends it")
            self._transcribe("microphone", None, blocks(), None, lambda place_s: None, live=True)
        if gone:
            raise gone[0]

    def _file(self, recording: Recording, journal: Journal | None, progress: TranscribeProgress) -> None:
        from gemma_mlx.inputs.sound_stream import open_sound

        source = recording.path or stdin.binary()
        with open_sound(source) as sound:
            progress.begin(recording.name, sound.duration_s)
            self._transcribe(recording.name, recording.target, sound.blocks, journal, progress.at, sound.duration_s)

    def _transcribe(
        self,
        name: str,
        target: Path | None,
        blocks: Iterable[Samples],
        journal: Journal | None,
        at: Callable[[float], None],
        duration_s: float | None = None,
        live: bool = False,
    ) -> None:
        """Writes what is said in `blocks`. Where that fails, no file is written, and what was heard is kept."""
        from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ
        from gemma_mlx.tasks.subtitles import written
        from gemma_mlx.tasks.transcript import segments
        from gemma_mlx.tasks.windows import recording_windows, speech_windows

        cut = speech_windows if live else recording_windows
        resumed = journal.windows if journal else 0
        tally = _Tally(name, resumed)
        if resumed:
            self._output.note(f"{name}: going on after {resumed:,} stretches of speech that were heard before")
        self._event("started", name, {"duration_s": duration_s, "kept": resumed})

        def hear(window: Window) -> Heard:
            heard = journal.of(window) if journal else None
            if heard is None:
                heard = self._listener.hear(window.samples, window.spoken_s)
                tally.heard(heard)
                if journal:
                    journal.keep(window, heard)
            at(window.end_s)
            return heard

        def counted() -> Iterator[Samples]:
            for block in blocks:
                yield block
                tally.samples += len(block)

        def noticed() -> Iterator[Segment]:
            for segment in segments(cut(counted(), self._aim), hear):
                tally.segment(segment)
                self._event("segment", name, tally.last)
                yield segment

        started_s = time.perf_counter()
        whole = False
        try:
            self._write(written(noticed(), self._writing.format, {"file": Path(name).name, **self._about}), target)
            whole = True
        finally:
            if self._writing.to_stdout:
                self._output.end_answer(whole)
        tally.finish(tally.samples / SAMPLE_RATE_HZ, time.perf_counter() - started_s)
        self._event("finished", name, {**tally.figures, "model": self._gemma.name, "miniature": self._gemma.miniature})
        self._output.note(tally.line)

    def _write(self, pieces: Iterable[str], target: Path | None) -> None:
        if target is None:
            for piece in pieces:
                if self._writing.to_stdout:
                    self._output.answer(piece)
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as file:
                for piece in pieces:
                    file.write(piece.encode(errors="replace"))  # as to stdout: a file's name may be no UTF-8
                file.write(b"\n")
        except OSError as error:
            raise GemmaError(f"cannot write {str(target)!r}: {error.strerror}; name another --output-dir") from error

    def _event(self, event: str, name: str, facts: dict[str, Any]) -> None:
        if self._writing.as_json:
            write_stdout(one_line({"event": event, "file": name, **facts}) + "\n")


class _Tally:
    """What comes together over one recording."""

    def __init__(self, name: str, resumed: int) -> None:
        from gemma_mlx.tasks.listening import COUNTS

        self._name = name
        self._resumed = resumed
        self.samples = 0
        self.last: dict[str, Any] = {}
        self._texts: list[str] = []
        self._doubts: Counter[str] = Counter()
        self._segments = self._doubted = 0
        self._counts = Counter(dict.fromkeys(COUNTS, 0))
        self._attempts = self._peak_memory_bytes = 0
        self._decoding_s = 0.0
        self.figures: dict[str, Any] = {}

    def heard(self, heard: Heard) -> None:
        """Of a window that the model was asked about now."""
        self._counts.update(heard.counts)
        self._attempts += heard.attempts
        self._decoding_s += heard.decoding_s
        self._peak_memory_bytes = max(self._peak_memory_bytes, heard.peak_memory_bytes)

    def segment(self, segment: Segment) -> None:
        from gemma_mlx.tasks.subtitles import as_object

        self.last = as_object(segment)
        self._segments += 1
        self._doubted += bool(segment.heard.doubts)
        self._doubts.update(segment.heard.doubts)
        self._texts.append(segment.text)

    def finish(self, duration_s: float, seconds: float) -> None:
        generated = self._counts["generated_tokens"]
        self.figures = {
            "text": " ".join(text for text in self._texts if text),
            "finish_reason": "length" if self._doubts["cut off"] else "stop",
            "duration_s": round(duration_s, 3),
            "segments": self._segments,
            "doubted": self._doubted,
            "doubts": dict(self._doubts),
            **self._counts,
            "generation_tps": (generated - self._attempts) / self._decoding_s if self._decoding_s else 0.0,
            "peak_memory_bytes": self._peak_memory_bytes,
            "seconds": round(seconds, 3),
        }

    @property
    def line(self) -> str:
        """For a person."""
        figures = self.figures
        timed = figures["seconds"] and not self._resumed  # what was heard before would count as speed
        doubts = ", ".join(f"{count} {doubt}" for doubt, count in self._doubts.items())
        return (
            f"{self._name} {clock(figures['duration_s'])}: {self._segments:,} segments"
            + (f", {self._doubted:,} doubtful ({doubts})" if self._doubted else "")
            + (f", {figures['duration_s'] / figures['seconds']:.1f} times real time" if timed else "")
        )


def _identity(read: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    """What is read of the file; InputError where it cannot be opened."""
    try:
        return read(path)
    except OSError as error:
        raise InputError(f"cannot open the sound {path}: {error.strerror}; check the path") from error
