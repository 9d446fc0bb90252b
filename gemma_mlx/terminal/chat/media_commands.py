"""The commands of the chat that see and hear."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from gemma_mlx.errors import InputError, UsageError
from gemma_mlx.terminal.chat.surface import Surface
from gemma_mlx.terminal.input_files import media_kind
from gemma_mlx.terminal.options import DETAILS

if TYPE_CHECKING:
    from PIL import Image

    from gemma_mlx.inputs.media import MediaKind
    from gemma_mlx.tasks.turn import Attached
    from gemma_mlx.terminal.capture.screenshot import ShotKind
    from gemma_mlx.terminal.screen.dropped import Dropped

SHOTS = ("region", "window", "screen")
MICS = ("direct", "dictate", "devices")
DETAIL_CHOICES = (*map(str, DETAILS), "auto")


async def attach(surface: Surface, name: str, rest: str) -> None:
    if not rest:
        raise UsageError(f"/{name} needs a path: /{name} FILE")
    if "://" in rest and not rest.startswith("file://"):
        raise UsageError(f"{rest[:80]} is not fetched: nothing here uses the network; download it and attach the file")
    await attach_file(surface, cast("MediaKind", name), typed_path(rest))


async def attach_file(surface: Surface, kind: MediaKind, path: Path) -> None:
    """Makes the file a chip of the next message."""
    conversation = await surface.conversation()
    await _add(surface, path.name, lambda: conversation.prepared(kind, path))
    if kind == "image":
        from gemma_mlx.inputs.image import open_image

        surface.draw(await surface.apart(lambda: open_image(path)))


async def attach_dropped(surface: Surface, pasted: str, dropped: Dropped) -> None:
    """Attaches the files that a paste names, after a yes; after a no, the paste is text."""
    names = ", ".join(path.name for path in dropped.paths)
    if not await surface.ask_yes(f"attach {names}?"):
        surface.put(pasted)
        return
    surface.put(dropped.text)
    for path in dropped.paths:
        kind = media_kind(path)
        if kind is not None:
            await attach_file(surface, kind, path)


async def shot(surface: Surface, name: str, rest: str) -> None:
    kind = rest or "region"
    if kind not in SHOTS:
        raise UsageError(f"/shot takes region, window or screen, not {rest!r}")
    from gemma_mlx.terminal.capture.screenshot import take_screenshot

    await _add_picture(surface, "screenshot", await surface.apart(lambda: take_screenshot(cast("ShotKind", kind))))


async def paste(surface: Surface, name: str, rest: str) -> None:
    from gemma_mlx.terminal.capture.clipboard import clipboard_picture

    await _add_picture(surface, "clipboard", await surface.apart(clipboard_picture))


async def _add_picture(surface: Surface, name: str, picture: Image.Image) -> None:
    conversation = await surface.conversation()
    await _add(surface, name, lambda: conversation.prepared("image", picture, name))
    surface.draw(picture)


async def _add(surface: Surface, name: str, prepare: Callable[[], Attached]) -> None:
    """Makes what `prepare` reads a chip of the next message."""
    waiting = surface.waiting
    waiting.preparing.append(name)
    try:
        media = await surface.apart(prepare)
        await surface.turn()
    finally:
        waiting.preparing.remove(name)
    waiting.chips.append(media)
    count = len(waiting.chips)
    surface.note(media.label + (f" ({count} attached)" if count > 1 else ""))


async def mic(surface: Surface, name: str, rest: str) -> None:
    if rest == "devices":
        from gemma_mlx.terminal.capture.microphone import input_devices

        for device in await surface.apart(input_devices):
            surface.say(f"{device.index}  {device.name}{'  (default)' if device.default else ''}")
    elif rest in ("", "direct", "dictate"):
        await surface.record(rest)
    else:
        from gemma_mlx.terminal.capture.microphone import input_device

        chosen = await surface.apart(lambda: input_device(rest))
        surface.device = chosen.index
        surface.note(f"the microphone is {chosen.name} from now on")


async def drop(surface: Surface, name: str, rest: str) -> None:
    if rest and not rest.isdecimal():
        raise UsageError(f"/drop takes the number of a chip, not {rest!r}")
    labels = surface.waiting.drop(int(rest) if rest else None)
    if rest and not labels:
        raise UsageError(f"there is no chip {rest}; they are numbered above the input line")
    surface.note(f"taken back: {', '.join(labels)}" if labels else "nothing waits for the next message")


async def detail(surface: Surface, name: str, rest: str) -> None:
    if rest not in DETAIL_CHOICES:
        raise UsageError(f"/detail takes one of {', '.join(map(str, DETAILS))} or auto, not {rest!r}")
    conversation = await surface.conversation()
    conversation.detail = "auto" if rest == "auto" else int(rest)
    needed = "what they need" if rest == "auto" else f"up to {rest} tokens"
    surface.note(f"pictures attached from now on take {needed}")


def typed_path(text: str) -> Path:
    """The file that was typed, dragged in (with quotes or backslashes) or named with ~."""
    try:
        path = Path(text).expanduser()
        if path.exists():
            return path
        if text.startswith("file://"):
            return Path(unquote(urlsplit(text).path))
        pieces = shlex.split(text)
        return Path(pieces[0]).expanduser() if len(pieces) == 1 else path
    except (ValueError, OSError, RuntimeError) as error:
        raise InputError(
            f"cannot find the file {text!r} ({error}); check its name, and quote it fully or not at all"
        ) from error
