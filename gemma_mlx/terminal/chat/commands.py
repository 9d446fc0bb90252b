"""The commands of the chat, each declared once: its name, what follows it, one line of help, and what it does."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal.chat import media_commands as media
from gemma_mlx.terminal.chat import turn_commands as chat
from gemma_mlx.terminal.chat.surface import Surface


@dataclass(frozen=True)
class Command:
    """One row of the help. What stands in `names` is told apart by `run`, which is given the name that was typed."""

    names: tuple[str, ...]
    arguments: str
    help: str
    run: Callable[[Surface, str, str], Awaitable[None]]
    takes_path: bool = False
    choices: tuple[str, ...] = ()

    @property
    def attaches(self) -> bool:
        """Whether something may go out with the next message because of it."""
        return self.run in (media.attach, media.shot, media.paste, media.mic)

    @property
    def usage(self) -> str:
        return " ".join([*(f"/{name}" for name in self.names), self.arguments]).strip()


async def _help(surface: Surface, name: str, rest: str) -> None:
    for line in HELP.splitlines():
        surface.say(line)


async def _quit(surface: Surface, name: str, rest: str) -> None:
    surface.leave()


COMMANDS = (
    Command(("image", "video", "audio"), "PATH", "attach a file; dragging one in does so too", media.attach, True),
    Command(("shot",), "[region|window|screen]", "attach a screenshot", media.shot, False, media.SHOTS),
    Command(("paste",), "", "attach the picture in the clipboard", media.paste),
    Command(("mic",), "[direct|dictate|devices|DEVICE]", "speak, or choose a microphone", media.mic, False, media.MICS),
    Command(("drop",), "[N]", "take back what waits, or chip N of it", media.drop),
    Command(("detail",), "70..1120|auto", "tokens per picture", media.detail, False, media.DETAIL_CHOICES),
    Command(("think",), "on|off|N", "think first; N tokens at most", chat.think, False, ("on", "off")),
    Command(("thoughts",), "", "show the last thoughts", chat.thoughts),
    Command(("system",), "TEXT", "instructions that stand before all; empty: none", chat.system),
    Command(("undo", "retry", "edit"), "", "the last turn: take back, ask again, change", chat.last_turn),
    Command(("copy",), "", "the last answer to the clipboard", chat.copy),
    Command(("save", "load"), "NAME", "name this chat; go on with another", chat.named),
    Command(("sessions",), "", "the chats that are kept", chat.sessions),
    Command(("export",), "FILE.md|.json", "write this chat into a file", chat.export, True),
    Command(("model",), "[FOLDER]", "which model answers; another one from now on", chat.model, True),
    Command(("stats",), "", "figures of the last answer and of memory", chat.stats),
    Command(("reset",), "", "begin a new chat", chat.reset),
    Command(("help", "quit"), "", "this list; leave (or Ctrl-D)", _help),
)
BY_NAME = {name: command for command in COMMANDS for name in command.names}
KEYS = """\
Enter sends, Alt-Enter begins a line, Tab completes, Ctrl-R searches history.
Ctrl-C stops an answer and keeps it; twice in an empty line leaves.
"""
HELP = "".join(f"{command.usage:<31} {command.help}\n" for command in COMMANDS) + KEYS


async def run_command(surface: Surface, line: str) -> None:
    """Does what `line`, which begins with a slash, says. GemmaError in one line where it cannot be done."""
    name, _, rest = line[1:].partition(" ")
    command = BY_NAME.get(name)
    if command is None:
        raise UsageError(f"there is no command /{name}; /help lists them")
    if rest and not command.arguments:
        raise UsageError(f"/{name} takes nothing behind it, not {rest.strip()!r}")
    if name == "quit":
        await _quit(surface, name, rest)
    else:
        await command.run(surface, name, rest.strip())


def attaches(line: str) -> bool:
    """Whether what the command in `line` brings may go out with the next message."""
    command = BY_NAME.get(line[1:].partition(" ")[0])
    return command is not None and command.attaches


def is_command(line: str) -> bool:
    """Whether a line is meant as a command: a slash and a word. A path that is dragged in has more slashes."""
    if not line.startswith("/") or line == "/":
        return line == "/"
    return "/" not in line.split(maxsplit=1)[0][1:] and not os.path.exists(line)  # noqa: PTH110  # False also for a name that is too long
