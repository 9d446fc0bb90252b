"""Chats that go on: each turn pays for what is new, and nothing grows that should not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from gemma_mlx import Gemma
from gemma_mlx.answer import Answer, Reply
from gemma_mlx.model.cache import SLACK_TOKENS
from gemma_mlx.tasks.conversation import Conversation

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"
QUESTIONS = [
    *("Hello", "What colour is the picture?", "What is 2 + 3?", "Who are you?", "And this one?", "Thank you!"),
    *("Which shapes are in the picture?", "What is 7 + 1?", "Hello again", "What is 4 + 5?", "Who made you?", "Bye"),
]
IMAGES = {1: SAMPLES / "scene-01.png", 4: SAMPLES / "scene-04.png"}


def shared(first: list[int], second: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))


def test_twelve_turns_with_two_pictures_and_thinking_compute_only_what_is_new(miniature: Gemma) -> None:
    """What is new is the past answer as history, the user's message, and where the model's turn begins.

    Where the past answer was short enough to be taken back token by token, also the few tokens of the prompt behind
    the snapshot are kept.
    """
    chat = Conversation(miniature, thinking=True, max_tokens=80)
    computed, cold = 0, 0
    cached: list[int] = []
    history: list[int] = []  # what the next prompt begins with, whatever the answer
    seen = set()
    for turn, text in enumerate(QUESTIONS):
        if turn in IMAGES:
            chat.attach("image", IMAGES[turn])
        answer = chat.ask(text)
        prompt = list(answer.prompt.ids)
        assert prompt[: len(history)] == history
        reply = finish(answer)
        new = reply.prompt_tokens - reply.reused_tokens
        assert reply.prompt_tokens == len(prompt)
        assert len(prompt) - new in (len(history), shared(cached, prompt))
        seen.add(len(prompt) - new == len(history))
        if len(cached) - shared(cached, prompt) > SLACK_TOKENS:
            assert new == len(prompt) - len(history)
        assert new <= len(prompt) - len(history)
        computed, cold = computed + new, cold + len(prompt)
        asked = [*chat.messages, chat._asked.message]
        history = list(miniature.prompts.build(asked, thinking=True, add_generation_prompt=False).ids)
        cached = prompt + list(reply.tokens)
        assert chat.keep(reply)
    assert seen == {True, False}
    assert computed < len(prompt) + len(QUESTIONS) * 3 < cold / 4
    assert reply.tokens == miniature.reply(asked, thinking=True, max_tokens=80).tokens


def finish(answer: Answer) -> Reply:
    for _ in answer:
        pass
    return answer.reply


_TURNS = """
import json, os, resource, sys
import mlx.core as mx
import numpy as np
from PIL import Image
from gemma_mlx import load
from gemma_mlx.home import miniature_folder

def resident_bytes():
    if not os.path.exists("/proc/self/statm"):  # macOS tells the most so far, which a leak drives up all the same
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

gemma = load(miniature_folder())
session, messages = gemma.session(), []
for turn in range(500):
    if turn % 10 == 0:
        messages = []
    picture = {"type": "image", "image": Image.new("RGB", (96, 96), (turn % 256, 7 * turn % 256, 0))}
    sound = {"type": "audio", "audio": (np.full(640, turn / 1000, dtype=np.float32), 16_000)}
    medium = picture if turn % 25 == 0 else sound
    messages.append({"role": "user", "content": [medium, {"type": "text", "text": "a"}]})
    messages = gemma.prepare(messages, 70)
    reply = gemma.reply(messages, session=session, max_tokens=1)
    assert reply.reused_tokens > 0 or turn % 10 == 0
    messages.append({"role": "assistant", "content": "b"})
    print(json.dumps([resident_bytes(), mx.get_active_memory()]))
"""


def test_memory_is_flat_over_500_turns_with_media() -> None:
    """Fifty chats of ten turns, one after the other in one session, and each answer one token long.

    Every 25th message has a new picture, each other one 40 ms of new sound, so it is what turns, media and chats leave
    behind that is measured, not what a long context takes. The process is one of its own, so that nothing else is in
    the figures; a leak of 10 kB a turn would be seen.
    """
    command = [sys.executable, "-c", _TURNS]
    root = Path(__file__).parents[1]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    turns = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(turns) == 500
    for figures in zip(*turns, strict=True):
        assert median(figures[450:]) < 1.02 * median(figures[100:150])
