"""What the chat's screen takes of the machine while an answer streams, and how soon a typed key is seen:

    python -m benchmarks.screen [--seconds 10] [--tokens-per-s 60] [--starts 5]

First `gemma-mlx chat` is started with the miniature on a terminal, to see when there is a prompt to type at.
A scripted model says a page of Markdown over and over at the rate of a fast Mac; it computes nothing, so whatever time
of a processor the screen's thread takes is the screen's own. Meanwhile somebody types. For each size of the window, one
line: the thread's time in percent of the time that the answer took, which is what it could take from the model at most;
how much later than due tokens were handed on, of 95 of 100; how long until a key was on its way to the terminal,
of half of them and of 95 of 100; drawings and bytes per second.
The last line is all of it in JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import pty
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from statistics import median, quantiles
from threading import Event
from types import SimpleNamespace
from typing import Any, TextIO, cast

from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from benchmarks.machine import where_measured
from benchmarks.scripted import LONGEST_WAIT_S, ScriptedGemma, spoken
from gemma_mlx.gemma import Gemma
from gemma_mlx.home import HOME_VARIABLE, MODEL_VARIABLE, miniature_folder
from gemma_mlx.tasks.conversation import Conversation
from gemma_mlx.terminal.chat.opening import Opening
from gemma_mlx.terminal.screen.app import Screen
from gemma_mlx.terminal.screen.printer import SYNCHRONIZED

SIZES = ((80, 24), (200, 50), (40, 12), (20, 8))
TYPED_EVERY_S = 0.15
_KEYS = "αβγδεζηθικλμνξοπρστυφχψω"
"""In no control sequence and not on the page: where one is sent to the terminal, it was typed."""
_EMPTY_LINE = "\x15"
_POLL_S = 0.02
PAGE = """\
## Sorting

A list is *sorted* when no element is smaller than the one before it. There are **many ways** to get there, and which of
them is best depends on `len(items)`, on what is known of the order beforehand, and on whether equal elements may change
places.

1. Insertion sort, for short lists
2. Merge sort, where equal elements keep their places
   - it needs a second list
   - it is easy to get right

```python
def insertion_sort(items: list[int]) -> list[int]:
    \"\"\"`items` in ascending order.\"\"\"
    for end, item in enumerate(items):
        place = next((i for i in range(end) if items[i] > item), end)
        items[place : end + 1] = [item, *items[place:end]]
    return items
```

| way | time | memory |
|---|---:|---:|
| insertion | n² | 1 |
| merge | n log n | n |
| 快速排序 | n log n | log n |

> Premature optimization is the root of all evil.

"""


class Terminal(io.StringIO):
    """Counts what is sent to it, and notes when a key that was typed is seen."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.size = Size(rows, columns)
        self.characters = self.drawings = 0
        self.awaited = ""
        self.seen = Event()

    def write(self, text: str) -> int:
        self.characters += len(text)
        self.drawings += text.count(SYNCHRONIZED[0])
        if self.awaited and self.awaited in text:
            self.seen.set()
        return len(text)


def typed(terminal: Terminal, keys: PipeInput, ended: Event) -> list[float]:
    """Types until `ended`, in a thread of its own; the seconds until each key was seen."""
    seen_after_s = []
    for key in cycle(_KEYS):
        if key == _KEYS[0]:
            keys.send_text(_EMPTY_LINE)
        if ended.wait(TYPED_EVERY_S):
            break
        terminal.seen.clear()
        terminal.awaited, sent_s = key, time.perf_counter()
        keys.send_text(key)
        if terminal.seen.wait(LONGEST_WAIT_S) and not ended.is_set():
            seen_after_s.append(time.perf_counter() - sent_s)
    return seen_after_s


def scripted_opening(gemma: ScriptedGemma) -> Opening:
    """Opens a chat with `gemma` that is not kept."""
    opening = SimpleNamespace(first=lambda _: Conversation(cast("Gemma", gemma)), max_tokens=1 << 20, save=False)
    return cast("Opening", opening)


def answered(columns: int, rows: int, seconds: float, tokens_per_s: float) -> dict[str, Any]:
    """The figures of one answer of so many seconds in a window of that size."""
    tokens = int(seconds * tokens_per_s)
    gemma = ScriptedGemma([islice(cycle(spoken(PAGE)), tokens)], 1 / tokens_per_s)
    terminal = Terminal(columns, rows)

    async def held(keys: PipeInput) -> dict[str, Any]:
        output = Vt100_Output(cast("TextIO", terminal), lambda: terminal.size, enable_cpr=False)
        with create_app_session(input=keys, output=output):
            screen = Screen(scripted_opening(gemma), [], InMemoryHistory(), True, output)
            talk = asyncio.create_task(screen.talk())
            await asyncio.sleep(0)
            await screen.conversation()
            keys.send_text("go\r")
            while not screen.busy:
                await asyncio.sleep(_POLL_S)
            found = await _measured(screen, terminal, keys)
            screen.leave()
            await talk
            return found

    with create_pipe_input() as keys:
        found = asyncio.run(held(keys))
    late_s = gemma.answers[0].late_s
    return {"columns": columns, "rows": rows, "tokens": tokens, **found, "token_late_95_s": _95_of_100(late_s)}


async def _measured(screen: Screen, terminal: Terminal, keys: PipeInput) -> dict[str, Any]:
    """Has somebody type until the answer has ended."""
    ended = Event()
    typist = asyncio.create_task(asyncio.to_thread(typed, terminal, keys, ended))
    characters, drawings = terminal.characters, terminal.drawings
    began_s, began_cpu_s = time.perf_counter(), time.thread_time()
    while screen.busy:
        await asyncio.sleep(_POLL_S)
    seconds, cpu_s = time.perf_counter() - began_s, time.thread_time() - began_cpu_s
    ended.set()
    seen_after_s = await typist
    return {
        "seconds": seconds,
        "screen_share": cpu_s / seconds,
        "keys": len(seen_after_s),
        "key_seen_median_s": median(seen_after_s),
        "key_seen_95_s": _95_of_100(seen_after_s),
        "drawings_per_s": (terminal.drawings - drawings) / seconds,
        "characters_per_s": (terminal.characters - characters) / seconds,
    }


def prompt_after_s() -> float:
    """From the command, with the miniature, to the prompt on a terminal."""
    master, slave = pty.openpty()
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, HOME_VARIABLE: home, MODEL_VARIABLE: str(miniature_folder()), "TERM": "xterm"}
        began_s = time.perf_counter()
        chat = subprocess.Popen(
            [sys.executable, "-m", "gemma_mlx", "chat", "--no-save"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        shown = b""
        while b">" not in shown:
            shown += os.read(master, 1 << 16)
        seconds = time.perf_counter() - began_s
        chat.kill()
        chat.wait()
        os.close(master)
    return seconds


def _95_of_100(values: list[float]) -> float:
    """What 95 of 100 of them do not exceed."""
    return quantiles(values, n=20)[-1]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--tokens-per-s", type=float, default=60)
    parser.add_argument("--starts", type=int, default=5)
    arguments = parser.parse_args()
    prompts_s = [prompt_after_s() for _ in range(arguments.starts)]
    sys.stderr.write(f"prompt after {', '.join(f'{seconds:.2f}' for seconds in prompts_s)} s\n")
    points = []
    for columns, rows in SIZES:
        point = answered(columns, rows, arguments.seconds, arguments.tokens_per_s)
        points.append(point)
        sys.stderr.write(
            f"{columns:3}x{rows:<3} screen {point['screen_share']:5.2%} of the time  "
            f"tokens late {point['token_late_95_s'] * 1e3:4.1f} ms  "
            f"keys seen after {point['key_seen_median_s'] * 1e3:4.1f} ms, 95 of 100 in "
            f"{point['key_seen_95_s'] * 1e3:5.1f} ms  {point['drawings_per_s']:4.1f} drawings/s  "
            f"{point['characters_per_s'] / 1e3:4.1f} KB/s\n"
        )
    report: dict[str, Any] = {"benchmark": "screen", **where_measured(), "tokens_per_s": arguments.tokens_per_s}
    report["prompt_after_s"] = prompts_s
    sys.stdout.write(json.dumps({**report, "points": points}) + "\n")


if __name__ == "__main__":
    main()
