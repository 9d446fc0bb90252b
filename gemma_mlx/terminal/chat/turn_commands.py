"""The commands of the chat about turns, settings and chats that are kept."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal.answering import figures
from gemma_mlx.terminal.chat.media_commands import typed_path
from gemma_mlx.terminal.chat.surface import Surface
from gemma_mlx.terminal.chat.waiting import Message

if TYPE_CHECKING:
    from gemma_mlx.tasks.conversation import Conversation


async def think(surface: Surface, name: str, rest: str) -> None:
    counted = rest.isdecimal() and rest.isascii() and len(rest) < 10
    if rest not in ("on", "off") and not counted:
        raise UsageError(f"/think takes on, off or a number of tokens, not {rest!r}")
    conversation = await surface.conversation()
    conversation.thinking = int(rest) if counted else rest == "on"
    if counted and int(rest):
        surface.note(f"thinking is on, for at most {int(rest):,} tokens")
    else:
        surface.note(f"thinking is {'on' if conversation.thinking else 'off'}")


async def thoughts(surface: Surface, name: str, rest: str) -> None:
    """Also those that no word of an answer came to, which are in no turn."""
    turns, reply = (await surface.conversation()).turns, surface.last_reply
    thought = reply.thought if reply is not None else turns[-1].thought if turns else ""
    if not thought:
        surface.say("there were no thoughts; /think on has the model think first")
        return
    for line in thought.splitlines():
        surface.say(line or " ")


async def system(surface: Surface, name: str, rest: str) -> None:
    (await surface.conversation()).system = rest or None
    surface.note("the system message is set" if rest else "there is no system message now")


async def last_turn(surface: Surface, name: str, rest: str) -> None:
    """/undo, /retry and /edit."""
    conversation = await surface.conversation()
    _when_idle(surface, name)
    if name == "retry":
        await surface.answer_again()
        return
    turn = conversation.edit() if name == "edit" else conversation.undo()
    if turn is None:
        raise UsageError(f"there is no turn to {name}; the chat has not begun")
    tell_notes(surface, conversation)
    if name == "edit":
        conversation.waiting = []
        surface.put_back(Message(turn.text, tuple(turn.attached)))
        surface.note("the turn is taken back; change it, and send it again")
    else:
        surface.note(f"taken back: {turn.text[:60]}")


async def copy(surface: Surface, name: str, rest: str) -> None:
    from gemma_mlx.terminal.capture.clipboard import copy_text

    turns = (await surface.conversation()).turns
    if not turns:
        raise UsageError("there is no answer yet to copy; ask something first")
    await surface.apart(lambda: copy_text(turns[-1].answer))
    surface.note(f"copied, {len(turns[-1].answer):,} characters")


async def named(surface: Surface, name: str, rest: str) -> None:
    """/save NAME and /load NAME."""
    if not rest:
        raise UsageError(f"/{name} needs a name: /{name} NAME")
    _when_idle(surface, name)
    if name == "load":
        await surface.change_chat(rest)
        return
    record = (await surface.conversation()).record
    if record is None:
        raise UsageError("this chat is not kept (--no-save), so it has no name; /export writes it into a file")
    record.rename(rest)
    quoted = shlex.quote(record.name or rest)
    surface.note(f"this chat is called {record.name} now; gemma-mlx chat --session {quoted} goes on with it")


async def sessions(surface: Surface, name: str, rest: str) -> None:
    from gemma_mlx.tasks.kept_chats import list_chats

    chats = await surface.apart(list_chats)
    for chat in chats:
        surface.say(
            f"{chat.name}  {chat.turns} turn{'s' * (chat.turns != 1)}  {chat.changed_at[:16].replace('T', ' ')}"
        )
    if not chats:
        surface.say("no chat is kept yet")


async def export(surface: Surface, name: str, rest: str) -> None:
    from gemma_mlx.tasks.exported_chat import export_chat

    if not rest:
        raise UsageError("/export needs a file: /export FILE.md or FILE.json")
    conversation, path = await surface.conversation(), typed_path(rest)
    record = conversation.record
    called = (record.name if record is not None else None) or "chat"
    turns = [*conversation.turns]
    for note in await surface.apart(lambda: export_chat(called, turns, path)):
        surface.say(note)
    surface.note(f"written: {path}")


async def model(surface: Surface, name: str, rest: str) -> None:
    if rest:
        _when_idle(surface, name)
        await surface.change_model(str(typed_path(rest)))
    else:
        gemma = (await surface.conversation()).gemma
        surface.say(f"{gemma.name}{' (a miniature)' if gemma.miniature else ''} in {gemma.folder}")


async def stats(surface: Surface, name: str, rest: str) -> None:
    conversation, reply = await surface.conversation(), surface.last_reply
    memory = conversation.gemma.memory()
    surface.say(f"memory {memory.used_bytes / 1e9:.2f} of {memory.limit_bytes / 1e9:.2f} GB")
    surface.say(figures(reply) if reply is not None else "there is no answer yet")


async def reset(surface: Surface, name: str, rest: str) -> None:
    _when_idle(surface, name)
    surface.waiting.chips = []
    await surface.change_chat(None)
    surface.note("a new chat; the model knows nothing of the one before")


def tell_notes(surface: Surface, conversation: Conversation) -> None:
    """Says what must be known about how the chat is kept."""
    for note in conversation.take_notes():
        surface.say(note)


def _when_idle(surface: Surface, name: str) -> None:
    """Refuses what would change the chat under an answer on its way, or under a message that was typed before it."""
    if surface.busy:
        raise UsageError(f"/{name} waits for no answer: Ctrl-C stops the one that is on its way")
    if surface.overtaking:
        raise UsageError(f"/{name} overtakes no messages that wait to be sent: /drop takes them back")
