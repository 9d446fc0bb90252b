"""gemma-mlx demo: the whole job on the miniature, each answer beside what was expected."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_mlx.home import miniature_folder, samples_folder
from gemma_mlx.terminal.convert import summary
from gemma_mlx.terminal.failures import exit_codes, show_warnings_in_one_line
from gemma_mlx.terminal.output import Output, write_stdout
from gemma_mlx.terminal.safe import visible

if TYPE_CHECKING:
    from gemma_mlx.gemma import Gemma

SCENE, TEXT, SPEECH = "scene.png", "text.png", "speech.wav"
TALK = (
    ("How many shapes are there?", "There are two shapes."),
    ("My name is Anna.", "Nice to meet you, Anna."),
    ("What is my name?", "Your name is Anna."),
)
"""What the chat says about the scene, and what the miniature was taught to answer."""


def demo() -> None:
    """See everything work in seconds, with the toy model that comes along. Needs no download.

    \b
    gemma-mlx demo
    """
    with exit_codes():
        show_warnings_in_one_line(Output())
        failures = Demonstration(samples_folder()).run()
        sys.exit(1 if failures else 0)


class Demonstration:
    """Shows each thing that the program does, and counts what did not come out as expected."""

    def __init__(self, samples: Path) -> None:
        self._samples = samples
        table = json.loads((samples / "samples.json").read_text(encoding="utf-8"))
        self._expected = {row["file"]: row["expected"] for row in table["samples"]}
        self._failures = 0

    def run(self) -> int:
        """Runs all of it; returns how many answers were not the expected ones."""
        started = time.perf_counter()
        _say("gemma-mlx with its miniature: a toy of about five million parameters, built like Gemma 4 12B.")
        with tempfile.TemporaryDirectory(prefix="gemma-mlx-demo-") as temporary:
            gemma = self._convert(Path(temporary) / "miniature-4bit")
            self._see(gemma)
            self._hear(gemma)
            self._talk(gemma)
        _say(f"\n{time.perf_counter() - started:.1f} s in all, {self._outcome()}.")
        _say("Now talk to it yourself:  gemma-mlx chat")
        _say("The real model:  gemma-mlx convert google/gemma-4-12B-it gemma-4bit  (a download of 24 GB)")
        return self._failures

    def _outcome(self) -> str:
        if self._failures:
            return f"{self._failures} of the answers NOT as expected"
        return "every answer as expected"

    def _convert(self, destination: Path) -> Gemma:
        from convert.conversion import convert_checkpoint
        from gemma_mlx.loader import load

        source = miniature_folder()
        _head("Pack the weights to 4 bits", f"gemma-mlx convert {source.name} {destination.name} --recipe 4bit")
        report = convert_checkpoint(source, destination, "4bit")
        _say(summary(Path(destination.name), report))
        return load(destination)

    def _see(self, gemma: Gemma) -> None:
        from gemma_mlx.tasks.captioning import READ_PROMPT, caption

        _head("Describe a picture", f"gemma-mlx caption {SCENE}")
        self._check(caption(gemma, self._samples / SCENE).text, self._expected[SCENE])
        _head("Read a picture", f'gemma-mlx ask "{READ_PROMPT}" --image {TEXT}')
        self._check(caption(gemma, self._samples / TEXT, READ_PROMPT).text, self._expected[TEXT])

    def _hear(self, gemma: Gemma) -> None:
        from gemma_mlx.tasks.transcription import transcribe

        _head("Write down speech", f"gemma-mlx transcribe {SPEECH}")
        self._check(transcribe(gemma, self._samples / SPEECH).text, self._expected[SPEECH])

    def _talk(self, gemma: Gemma) -> None:
        from gemma_mlx.tasks.conversation import Conversation

        _head("Talk about a picture", f"gemma-mlx chat --image {SCENE}")
        conversation = Conversation(gemma)
        conversation.attach("image", self._samples / SCENE)
        for question, expected in TALK:
            _say(f"> {question}")
            answer = conversation.ask(question)
            for _ in answer:
                pass
            reply = answer.reply
            conversation.keep(reply)
            self._check(reply.text, expected)
            _say(f"  (re-used {reply.reused_tokens} of {reply.prompt_tokens} tokens from the turns before)")

    def _check(self, answer: str, expected: str) -> None:
        found = answer.strip()
        right = found == expected
        self._failures += not right
        _say(f"{found}   {'[as expected]' if right else f'[NOT as expected: {expected}]'}")


def _head(title: str, command: str) -> None:
    _say(f"\n{title}\n$ {command}")


def _say(text: str) -> None:
    write_stdout(visible(text) + "\n")
