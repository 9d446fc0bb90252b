"""From /mic to a chip or a line of text: the recording is watched, reviewed, and heard or written down."""

from __future__ import annotations

import asyncio
from typing import Protocol

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal.capture.playback import play, stop_playing
from gemma_mlx.terminal.capture.recorder import Recorder
from gemma_mlx.terminal.chat.surface import Surface
from gemma_mlx.terminal.chat.waiting import PastedText
from gemma_mlx.terminal.screen.asking import Asking
from gemma_mlx.terminal.screen.recording import RecordingPanel, Samples

TICK_S = 0.1


class PanelSurface(Surface, Protocol):
    """A surface that can show the panel."""

    asking: Asking
    speaking: bool
    """Whether a /mic is at work, from the microphone that opens to the chip or the text."""

    def redraw(self) -> None: ...
    async def write_down(self, samples: Samples) -> str | None:
        """What is said in `samples`, after whatever the model is doing; None where that was stopped."""
        ...


async def recorded(screen: PanelSurface) -> Samples | None:
    """What is spoken into the microphone and kept; None where it is dropped."""
    panel = await screen.apart(lambda: RecordingPanel(lambda: Recorder(screen.device), play, stop_playing))
    screen.asking.panel = panel
    try:
        while not panel.over:
            panel.tick()
            screen.redraw()
            await asyncio.sleep(TICK_S)
    finally:
        screen.asking.panel = None
        await screen.apart(panel.wait)
    if panel.problem is not None:
        screen.say(panel.problem)
    return panel.result


async def speak(screen: PanelSurface, way: str) -> None:
    """Records, and attaches the clip or puts its words into the input line. `way` as of `Surface.record`.

    UsageError while another one does: there is one panel, and its keys go to one recording.
    """
    if screen.speaking:
        raise UsageError("one /mic at a time: end the recording before, or wait until it is written down")
    screen.speaking = True
    try:
        await _speak(screen, way)
    finally:
        screen.speaking = False


async def _speak(screen: PanelSurface, way: str) -> None:
    from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ
    from gemma_mlx.tasks.dictation import LAST_HEARD_TOKENS, heard_until
    from gemma_mlx.tasks.windows import from_first_to_last_word

    heard = await recorded(screen)
    if heard is None:
        return
    samples = await screen.apart(lambda: from_first_to_last_word(heard))
    conversation = await screen.conversation()
    clip = await screen.apart(lambda: conversation.prepared("audio", (samples, SAMPLE_RATE_HZ), "speech"))
    await screen.turn()
    waiting = [chip for chip in screen.waiting.chips if not isinstance(chip, PastedText)]
    end = await screen.apart(lambda: heard_until(conversation, [*waiting, clip]))
    if way == "direct" or (way != "dictate" and end <= LAST_HEARD_TOKENS):
        screen.waiting.chips.append(clip)
        late = f"; it ends at token {end:,}, where the model may not hear it" if end > LAST_HEARD_TOKENS else ""
        screen.note(f"{clip.label}{late}")
        return
    late = f": as sound it would end at token {end:,}, past the {LAST_HEARD_TOKENS} that the model is sure to hear"
    screen.note("writing the speech down" + ("" if way else late))
    text = await screen.write_down(samples)
    if text is None:
        screen.say("stopped; the speech is not written down")
    elif text:
        screen.put(text)
    else:
        screen.say("there were no words in it")
