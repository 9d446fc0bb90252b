"""`gemma-mlx caption` on a folder, killed and resumed, beside one `gemma-mlx ask` per picture.

`python -m benchmarks.captions` draws 500 pictures, breaks 20 of them, captions the folder while it kills the process
(`kill -9`) now and then, and counts how often each picture was captioned. Then it measures images per minute, of some
pictures in one batch and of asking about them one after another. It prints a table and one line of JSON; the exit code
is 1 if a caption is missing, came twice or came differently, or an error is not told by name.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image, ImageDraw

COMMAND = [sys.executable, "-m", "gemma_mlx"]
PROMPT = "Describe this image in one sentence."
_COLOURS = [(214, 40, 40), (40, 90, 200), (40, 160, 60), (240, 200, 40), (120, 50, 160)]


def draw_pictures(folder: Path, count: int, broken: int, seed: int = 0) -> list[str]:
    """Draws `count` pictures, no two alike, of which `broken` are cut short, empty or text; returns their names."""
    rng = Random(seed)
    names = []
    for index in range(count):
        picture = Image.new("RGB", (rng.randrange(200, 500), rng.randrange(200, 500)), "white")
        draw = ImageDraw.Draw(picture)
        for _ in range(rng.randrange(1, 3)):
            left, top, side = rng.randrange(120), rng.randrange(120), rng.randrange(50, 90)
            shape = rng.choice([draw.ellipse, draw.rectangle])
            shape((left, top, left + side, top + side), fill=rng.choice(_COLOURS))
        picture.putpixel((0, 0), (index % 256, index // 256, 255))
        picture.save(folder / f"picture-{index:04}.png")
    for number, index in enumerate(sorted(rng.sample(range(count), broken))):
        file = folder / f"picture-{index:04}.png"
        whole = file.read_bytes()
        file.write_bytes([whole[: len(whole) // 2], b"", b"This is no picture."][number % 3])
        names.append(file.name)
    return names


def caption(paths: list[Path], home: Path, *flags: str, kill_after_lines: int | None = None) -> tuple[int, list[str]]:
    """One `caption --json`, killed after so many lines: exit code and lines. Errors are in `home`.errors."""
    with home.with_suffix(".errors").open("wb") as stderr:
        command = [*COMMAND, "caption", "--json", "-t", "0", *flags, *map(str, paths)]
        environment = {**os.environ, "GEMMA_MLX_HOME": str(home)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environment, text=True) as child:
            assert child.stdout is not None
            lines = []
            for line in child.stdout:
                lines.append(line)
                if len(lines) == kill_after_lines:
                    child.kill()
        return child.returncode, lines


def measure(pictures: int, broken: int, asks: int, kills: int, work: Path) -> dict[str, Any]:
    """What the module's text says, as figures."""
    folder, home = work / "pictures", work / "home"
    folder.mkdir()
    bad = draw_pictures(folder, pictures, broken)

    # What is known comes at once, so each run gets further than the one before it.
    stops = [(run + 1) * (pictures - broken) // (kills + 1) for run in range(kills)]
    killed = [caption([folder], home, "--resume", kill_after_lines=stop)[0] for stop in stops]
    code, resumed = caption([folder], home, "--resume")
    errors = home.with_suffix(".errors").read_text(encoding="utf-8")
    named = [json.loads(line)["file"] for line in errors.splitlines() if line.startswith("{")]
    kept = [json.loads(line)["digest"] for file in home.glob("captions/*") for line in file.open(encoding="utf-8")]

    good = [file for file in sorted(folder.iterdir()) if file.name not in bad][:asks]
    begun_s = time.perf_counter()
    _, batch = caption(good, work / "another-home")
    batch_s = time.perf_counter() - begun_s
    begun_s = time.perf_counter()
    asked = [_asked(file) for file in good]
    ask_s = time.perf_counter() - begun_s
    return {
        "pictures": pictures,
        "broken": broken,
        "captions": len(resumed),
        "exit_code": code,
        "errors_by_name": sum(Path(name).name in bad for name in named),
        "kills": sum(code == -signal.SIGKILL for code in killed),
        "captioned": len(kept),
        "captioned_twice": len(kept) - len(set(kept)),
        "as_asked": [_said(line) for line in resumed[:asks]] == [_said(line) for line in batch] == asked,
        "images_per_minute": round(len(good) / batch_s * 60, 1),
        "images_per_minute_by_ask": round(len(good) / ask_s * 60, 1),
        "ratio": round(ask_s / batch_s, 2),
    }


def _asked(file: Path) -> str:
    command = [*COMMAND, "ask", PROMPT, "--image", str(file), "-t", "0", "--json"]
    ended = subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, text=True)
    return _said(ended.stdout)


def _said(line: str) -> str:
    return str(json.loads(line)["text"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("pictures", 500), ("broken", 20), ("asks", 20), ("kills", 3)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = measure(asked.pictures, asked.broken, asked.asks, asked.kills, Path(work))
    for name, value in found.items():
        print(f"{name.replace('_', ' '):28} {value}", file=sys.stderr)  # noqa: T201
    print(json.dumps(found))  # noqa: T201
    right = (
        found["captions"] == found["captioned"] == asked.pictures - asked.broken
        and found["errors_by_name"] == asked.broken
        and found["exit_code"] == (1 if asked.broken else 0)
        and not found["captioned_twice"]
        and found["as_asked"]
    )
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
