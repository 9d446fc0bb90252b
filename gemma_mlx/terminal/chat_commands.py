"""The commands of the chat about turns, settings and chats that are kept."""

from __future__ import annotations

from pathlib import Path

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal.answering import figures
from gemma_mlx.terminal.media_commands import typed_path
from gemma_mlx.terminal.surface import Surface


async def think(surface: Surface, name: str, rest: str) -> None:
    if rest not in ("on", "off") and not (rest.isdigit() and int(rest)):
        raise UsageError(f"/think takes on, off or the most tokens of thought, not {rest!r}")
    conversation = await surface.conversation()
    conversation.thinking = int(rest) if rest.isdigit() else rest == "on"
    surface.note(f"thinking is on, for at most {int(rest):,} tokens" if rest.isdigit() else f"thinking is {rest}")


async def thoughts(surface: Surface, name: str, rest: str) -> None:
    reply = (await surface.conversation()).last_reply
    if reply is None or not reply.thought:
        surface.say("there were no thoughts; /think on has the model think first")
        return
    for line in reply.thought.splitlines():
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
    turn = conversation.undo()
    if turn is None:
        raise UsageError(f"there is no turn to {name}; the chat has not begun")
    if surface.kept is not None:
        surface.kept.forget_last()
    if name == "edit":
        surface.waiting.chips = [*turn.media]
        surface.put(turn.text)
        surface.note("the turn is taken back; change it, and send it again")
    else:
        surface.note(f"the turn is taken back: {turn.text[:60]}")


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
        await surface.open_chat(rest)
        return
    if surface.kept is None:
        raise UsageError("this chat is not kept (--no-save), so it has no name; /export writes it into a file")
    surface.kept.rename(rest)
    surface.note(f"this chat is called {surface.kept.name} now; gemma-mlx chat --session {surface.kept.name} goes on")


async def sessions(surface: Surface, name: str, rest: str) -> None:
    from gemma_mlx.tasks.kept_chats import list_chats

    chats = await surface.apart(list_chats)
    for chat in chats:
        surface.say(f"{chat.name}  {chat.turns} turns  {chat.changed:%Y-%m-%d %H:%M}")
    if not chats:
        surface.say("no chat is kept yet")


async def export(surface: Surface, name: str, rest: str) -> None:
    from gemma_mlx.tasks.exported_chat import export_chat

    if not rest:
        raise UsageError("/export needs a file: /export FILE.md or FILE.json")
    conversation, path = await surface.conversation(), typed_path(rest)
    await surface.apart(lambda: export_chat(conversation, path))
    surface.note(f"written: {path}")


async def model(surface: Surface, name: str, rest: str) -> None:
    if rest:
        _when_idle(surface, name)
        await surface.change_model(str(Path(rest).expanduser()))
    else:
        surface.say((await surface.conversation()).model_name)


async def stats(surface: Surface, name: str, rest: str) -> None:
    conversation = await surface.conversation()
    reply, memory = conversation.last_reply, conversation.memory()
    surface.say(f"memory {memory.used_bytes / 1e9:.2f} of {memory.limit_bytes / 1e9:.2f} GB")
    surface.say(figures(reply) if reply is not None else "there is no answer yet")


async def reset(surface: Surface, name: str, rest: str) -> None:
    _when_idle(surface, name)
    conversation = await surface.conversation()
    await surface.with_model(conversation.reset)
    surface.waiting.chips = []
    surface.note("everything is forgotten")


def _when_idle(surface: Surface, name: str) -> None:
    if surface.busy:
        raise UsageError(f"/{name} waits for no answer: Ctrl-C stops the one that is on its way")
