"""The panel in which one speaks, with a recording that does what the test says."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from rich.cells import cell_len

from gemma_mlx.errors import InputError
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ
from gemma_mlx.terminal.screen.recording import RecordingPanel, Samples


@dataclass
class Spoken:
    level: float = 0.5
    ended_by: str | None = None
    problem: str | None = None
    elapsed_s: float = 7.25
    left_s: float = 22.75
    samples: Samples = field(default_factory=lambda: np.ones(SAMPLE_RATE_HZ, dtype=np.float32))
    stops: int = 0
    waited_s: float = 0.0

    def start(self) -> None:
        self.ended_by = None

    def stop(self) -> None:
        self.stops += 1

    def wait(self, limit_s: float) -> None:
        self.waited_s = limit_s


class Played:
    def __init__(self, failure: Exception | None = None) -> None:
        self.told: list[str] = []
        self._failure = failure

    def play(self, samples: Samples) -> None:
        if self._failure is not None:
            raise self._failure
        self.told.append(f"play {len(samples)}")

    def stop(self) -> None:
        self.told.append("stop")


def panel_of(recordings: list[Spoken], player: Played | None = None) -> RecordingPanel:
    player = player or Played()
    return RecordingPanel(lambda: recordings.pop(0), player.play, player.stop)


def test_nobody_is_asked_to_speak_before_the_microphone_hears() -> None:
    spoken = Spoken(elapsed_s=0.0)
    panel = panel_of([spoken])
    assert "the microphone opens" in panel.line(100)
    spoken.elapsed_s = 0.02
    assert "● 00:00" in panel.line(100)


def test_a_recording_is_reviewed_and_kept() -> None:
    spoken = Spoken()
    panel = panel_of([spoken])
    assert "00:07" in panel.line(100)
    assert "23 s left" in panel.line(100)
    panel.key("enter")
    assert spoken.stops == 1
    panel.tick()
    assert panel.state == "recording"
    spoken.ended_by = "key"
    panel.tick()
    assert "1.0 s heard" in panel.line(100)
    assert panel.result is None
    panel.key("enter")
    assert panel.over
    assert panel.result is spoken.samples


def test_it_is_played_and_recorded_again() -> None:
    first, second, player = Spoken(), Spoken(), Played()
    panel = panel_of([first, second], player)
    first.ended_by = "silence"
    panel.tick()
    assert "then silence" in panel.line(100)
    panel.key("p")
    panel.key("r")
    assert player.told == [f"play {SAMPLE_RATE_HZ}", "stop"]
    assert panel.state == "recording"
    second.ended_by = "key"
    panel.tick()
    panel.key("enter")
    assert panel.result is second.samples


@pytest.mark.parametrize("reviewed", [False, True])
def test_escape_drops_it(reviewed: bool) -> None:
    spoken = Spoken()
    panel = panel_of([spoken])
    if reviewed:
        spoken.ended_by = "key"
        panel.tick()
    panel.key("escape")
    panel.wait()
    assert spoken.waited_s > 0
    assert panel.over
    assert panel.result is None


def test_a_microphone_that_cannot_be_used_leaves_nothing_to_review() -> None:
    spoken = Spoken()
    panel = panel_of([spoken])
    spoken.ended_by, spoken.problem = "failed", "the microphone cannot be used"
    panel.tick()
    assert (panel.state, panel.problem) == ("dropped", "the microphone cannot be used")


def test_one_that_went_away_leaves_what_was_heard() -> None:
    spoken = Spoken()
    panel = panel_of([spoken])
    spoken.ended_by, spoken.problem = "unplugged", "the microphone went away"
    panel.tick()
    assert panel.state == "review"


def test_without_a_loudspeaker_the_review_goes_on() -> None:
    spoken = Spoken()
    panel = panel_of([spoken], Played(InputError("no output \x1b[2J")))
    spoken.ended_by = "key"
    panel.tick()
    panel.key("p")
    assert "no output" in panel.line(100)
    assert "\x1b" not in panel.line(100)
    panel.key("enter")
    assert panel.state == "kept"


@pytest.mark.parametrize("columns", [10, 20, 40, 80])
def test_it_fits_narrow_windows(columns: int) -> None:
    spoken = Spoken()
    panel = panel_of([spoken])
    assert cell_len(panel.line(columns)) <= columns
    spoken.ended_by = "full"
    panel.tick()
    assert cell_len(panel.line(columns)) <= columns
