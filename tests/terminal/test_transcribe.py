"""gemma-mlx transcribe through the command line; long recordings are joined from the sample clips."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import srt

from gemma_mlx.errors import GemmaError
from gemma_mlx.home import miniature_folder, samples_folder
from gemma_mlx.inputs.waveform import read_waveform
from gemma_mlx.terminal import transcribe_run
from gemma_mlx.terminal.recordings import Recording, find_recordings
from tests.inputs.clips import clip
from tests.terminal.conftest import Run, named_pipe

RATE_HZ = 16_000
CLIPS = [f"speech-{number:02}.flac" for number in (0, 2, 5)]


def expected_of(*names: str) -> str:
    rows = json.loads((samples_folder() / "samples.json").read_text(encoding="utf-8"))["samples"]
    said = {row["file"]: row["expected"] for row in rows}
    return " ".join(said[name] for name in names)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips with a second of silence after each, as FLAC."""
    path = tmp_path_factory.mktemp("talk") / "talk.flac"
    silence = np.zeros(RATE_HZ, np.float32)
    parts = [part for name in CLIPS for part in (read_waveform(samples_folder() / name), silence)]
    soundfile.write(path, np.concatenate(parts), RATE_HZ)
    return path


def events(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_short_clip_is_its_text_on_stdout(run: Run) -> None:
    ended = run("transcribe", samples_folder() / "speech.wav")
    assert (ended.code, ended.out) == (0, f"{expected_of('speech.wav')}\n")
    assert "speech.wav 1.1 s: 1 segments" in ended.err


def test_a_longer_recording_is_written_in_one_go_and_quietly(run: Run, talk: Path) -> None:
    ended = run("transcribe", talk, "-q")
    assert (ended.code, ended.out.split()) == (0, expected_of(*CLIPS).split())
    assert [line for line in ended.err.splitlines() if not line.startswith("note: the miniature")] == []


def test_stdin_is_a_recording_and_its_transcript_can_be_piped_on(talk: Path) -> None:
    environment = {**os.environ, "GEMMA_MLX_MODEL": str(miniature_folder())}
    program = f"{sys.executable} -m gemma_mlx"
    pipe = f"cat {talk} | {program} transcribe - | tee {talk}.txt | {program} ask Summarise -n 4"
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", pipe], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert Path(f"{talk}.txt").read_text(encoding="utf-8").split() == expected_of(*CLIPS).split()
    assert ended.stdout.strip()


def test_a_pipe_with_a_name_is_read_once(run: Run, own_home: Path) -> None:
    with named_pipe((samples_folder() / CLIPS[0]).read_bytes()) as pipe:
        ended = run("transcribe", pipe)
    assert (ended.code, ended.out) == (0, f"{expected_of(CLIPS[0])}\n")
    assert not (own_home / "transcripts").exists()


def test_events_are_one_object_a_line(run: Run, talk: Path) -> None:
    ended = run("transcribe", talk, "--json", "--logprobs", 2, "--draft", "off")
    started, *segments, finished = events(ended.out)
    assert (started["event"], started["file"], started["duration_s"]) == (
        "started",
        str(talk),
        pytest.approx(7.6, abs=0.1),
    )
    assert [segment["event"] for segment in segments] == ["segment"] * 3
    assert all(len(segment["tokens"]) == len(segment["logprobs"]) > 0 for segment in segments)
    assert all(len(best) == 2 for best in segments[0]["logprobs"])
    assert finished["event"] == "finished"
    assert finished["text"].split() == expected_of(*CLIPS).split()
    assert (finished["segments"], finished["doubted"], finished["miniature"]) == (3, 0, True)
    assert finished["finish_reason"] == "stop"
    assert finished["generation_tps"] > 0
    assert finished["peak_memory_bytes"] > 1e6
    assert finished["reused_tokens"] > 0.5 * (finished["prompt_tokens"] - finished["audio_tokens"])


def test_files_folders_and_failures(run: Run, talk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "below" / ".hidden").mkdir(parents=True)
    for target in ("b.flac", "below/a.FLAC", "below/.hidden/c.flac", ".d.flac", "notes.txt"):
        shutil.copy(samples_folder() / CLIPS[0], folder / target)
    (folder / "broken.wav").write_bytes(b"RIFF....WAVEnothing of the kind")
    out = tmp_path / "out"
    ended = run("transcribe", folder, tmp_path / "missing.wav", "--output-dir", out, "--format", "srt", "--json")
    assert ended.code == 1
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == ["b.srt", "below/a.srt"]
    [cue] = srt.parse((out / "b.srt").read_text(encoding="utf-8"))
    assert cue.content == expected_of(CLIPS[0])
    told = [(event["event"], Path(event["file"]).name) for event in events(ended.out) if event["event"] != "segment"]
    assert told == [
        ("started", "b.flac"), ("finished", "b.flac"), ("started", "a.FLAC"), ("finished", "a.FLAC"),
        ("failed", "broken.wav"), ("failed", "missing.wav"),
    ]  # fmt: skip


def test_each_recording_is_found_once_and_has_a_file_of_its_own(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.mov", "a.wav", "b.wav"):
        (folder / name).touch()
    twice = [f"{folder}/a.wav", f"{folder}/../in/b.wav", str(folder), f"{folder}/a.wav"]
    found = [(Path(one.name).name, one.target) for one in find_recordings(twice, out, "srt")]
    assert found == [("a.wav", out / "a.srt"), ("b.wav", out / "b.srt"), ("a.mov", out / "a.mov.srt")]
    assert [Path(one.name).name for one in find_recordings(twice, None, "txt")] == ["a.wav", "b.wav", "a.mov"]


def test_what_was_finished_before_a_failure_is_not_heard_again(
    run: Run, talk: Path, tmp_path: Path, own_home: Path
) -> None:
    missing = tmp_path / "missing.wav"
    first = run("transcribe", talk, missing, "--json")
    assert first.code == 1
    assert len(list((own_home / "transcripts").iterdir())) == 1
    shutil.copy(samples_folder() / CLIPS[0], missing)
    again = events(run("transcribe", talk, missing, "--json").out)
    assert [event["kept"] for event in again if event["event"] == "started"] == [3, 0]
    assert [event.get("generated_tokens", 0) > 0 for event in again if event["event"] == "finished"] == [False, True]
    before = [event for event in events(first.out) if event["event"] == "segment"]
    assert [event for event in again if event["event"] == "segment"][:3] == before
    assert list((own_home / "transcripts").iterdir()) == []


def test_ctrl_c_keeps_what_was_heard(run: Run, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gemma_mlx.tasks.listening import Listener

    out = tmp_path / "out"
    command = ("transcribe", talk, "--format", "json", "--output-dir", out, "--draft", "off")
    assert run(*command).code == 0
    whole = (out / "talk.json").read_bytes()
    (out / "talk.json").unlink()
    heard: list[float] = []
    hear = Listener.hear

    def interrupted(self: Listener, samples: Any, spoken_s: float) -> Any:
        heard.append(spoken_s)
        if len(heard) == 3:
            raise KeyboardInterrupt
        return hear(self, samples, spoken_s)

    monkeypatch.setattr(Listener, "hear", interrupted)
    assert run(*command).code == 130
    assert list(out.iterdir()) == []
    assert run(*command).code == 0
    assert len(heard) == 3 + 1
    assert (out / "talk.json").read_bytes() == whole


def test_silence_and_a_cut_answer_have_their_figures_too(run: Run, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE_HZ), RATE_HZ)
    clip = samples_folder() / "speech.wav"
    told = events(run("transcribe", tmp_path / "silence.wav", clip, "--json", "-n", 1).out)
    silent, cut = (event for event in told if event["event"] == "finished")
    assert (silent["text"], silent["finish_reason"], silent["generated_tokens"]) == ("", "stop", 0)
    assert (silent["generation_tps"], silent["peak_memory_bytes"]) == (0.0, 0)
    assert (cut["finish_reason"], cut["generated_tokens"]) == ("length", 1)


def test_what_was_heard_before_does_not_count_as_speed(run: Run, talk: Path, tmp_path: Path) -> None:
    spoken = [run("transcribe", talk, tmp_path / "missing.wav").err for _ in range(2)]
    assert ["times real time" in said for said in spoken] == [True, False]


@pytest.mark.parametrize("kind", ["read only", *(["/dev/full"] if Path("/dev/full").exists() else [])])
def test_where_stdout_takes_nothing_no_further_file_is_heard(kind: str, talk: Path, tmp_path: Path) -> None:
    """A file that is open for reading, anywhere, and the full disk that Linux has as a device."""
    command = [sys.executable, "-m", "gemma_mlx", "transcribe", str(samples_folder() / "speech.wav"), str(talk)]
    (tmp_path / "read only").touch()
    with os.fdopen(os.open(tmp_path / kind, os.O_RDONLY if kind == "read only" else os.O_WRONLY)) as taking_nothing:
        ended = subprocess.run(command, stdout=taking_nothing, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert "cannot write the answer to stdout" in ended.stderr
    assert "talk.flac" not in ended.stderr


def test_a_recording_at_work_is_not_begun_anew_beside(run: Run, talk: Path, own_home: Path, tmp_path: Path) -> None:
    from gemma_mlx.kept_lines import KeptLines

    assert run("transcribe", talk, tmp_path / "missing.wav").code == 1
    [journal] = (own_home / "transcripts").iterdir()
    other = KeptLines(journal)
    for restart in ([], ["--restart"]):
        ended = run("transcribe", talk, *restart)
        assert (ended.code, ended.out) == (1, "")
        assert "another process" in ended.errors[0]
    other.close()
    assert run("transcribe", talk, "-q").code == 0


def test_a_name_that_is_no_utf_8_stops_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name only: macOS lets no file have such a one, but a disk from elsewhere may."""
    real = tmp_path / "real.wav"
    soundfile.write(real, np.zeros(RATE_HZ), RATE_HZ)

    class Odd(Recording):
        path = real

    odd = Odd(os.fsdecode(b"odd\xff.wav"), tmp_path / "out" / "odd.json")
    monkeypatch.setattr("gemma_mlx.terminal.transcribe.find_recordings", lambda *_: [odd])
    ended = run("transcribe", real, "--format", "json", "--output-dir", tmp_path / "out")
    assert (ended.code, ended.errors) == (0, [])
    [written] = (tmp_path / "out").iterdir()
    assert json.loads(written.read_text(encoding="utf-8"))["file"] == "odd?.wav"


def test_restart_hears_all_again(run: Run, talk: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.wav"
    for restart, kept in (((), 0), ((), 3), (("--restart",), 0)):
        started = events(run("transcribe", talk, missing, "--json", *restart).out)[0]
        assert started["kept"] == kept


def test_a_recording_that_ends_early_leaves_no_file(run: Run, talk: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.wav"
    soundfile.write(cut, np.concatenate([read_waveform(talk)] * 3), RATE_HZ)
    cut.write_bytes(cut.read_bytes()[:-1000])
    ended = run("transcribe", cut, "--output-dir", tmp_path / "out")
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)
    assert "ends early" in ended.errors[0]
    assert not list((tmp_path / "out").rglob("*"))


def test_json_of_a_recording_that_ends_early_is_a_whole_document(run: Run, talk: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mka"
    whole = clip([], "matroska", sound=read_waveform(talk), rate_hz=RATE_HZ)
    cut.write_bytes(whole[: len(whole) * 9 // 10])
    ended = run("transcribe", cut, "--format", "json")
    found = json.loads(ended.out)
    assert (ended.code, ended.errors) == (1, [f"error: {found['error']}"])
    assert " ".join(segment["text"] for segment in found["segments"]) == expected_of(*CLIPS[:2])


def test_silence_is_not_sent_to_the_model(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gemma_mlx.tasks.listening import Listener

    monkeypatch.setattr(Listener, "hear", lambda *_: pytest.fail("the model was asked"))
    soundfile.write(tmp_path / "silence.wav", np.random.default_rng(0).normal(0, 1e-3, 40 * RATE_HZ), RATE_HZ)
    assert run("transcribe", tmp_path / "silence.wav").out == "\n"


def test_a_sound_track_is_heard(run: Run, talk: Path, tmp_path: Path) -> None:
    import av

    film = tmp_path / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(read_waveform(talk)[None], format="fltp", layout="mono")
        frame.sample_rate = RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    found = run("transcribe", film, "-q").out.split()
    assert sum(a != b for a, b in zip(found, expected_of(*CLIPS).split(), strict=True)) <= 1


def test_a_translation_and_a_vocabulary_change_the_prompt(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    clip = samples_folder() / "speech.wav"
    run("transcribe", clip, "--language", "German", "--translate-to", "English", "--prompt", "Zaphod, Trillian",
        "-n", 8, "--format", "json", "--output-dir", out)  # fmt: skip
    found = json.loads((out / "speech.json").read_text(encoding="utf-8"))
    assert found["prompt"].startswith(
        "Transcribe the following speech segment in German, then translate it into English"
    )
    assert "Zaphod, Trillian" in found["prompt"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.wav", "--format", "docx"],
        ["a.wav", "b.wav", "--format", "srt"],
        ["a.wav", "--format", "srt", "--json"],
        ["a.wav", "--logprobs", "2"],
        ["a.wav", "--prompt", " "],
        ["a.wav", "--translate-to", "a\nb"],
        ["-", "-"],
        ["--live", "a.wav"],
        ["--live", "--restart"],
        ["--live", "--output-dir", "x"],
        ["a.wav", "x/a.wav", "z/a.wav", "--output-dir", "y"],
        ["a.txt", "--output-dir", "."],
    ],
)
def test_what_contradicts_itself_or_has_no_effect_is_wrong_usage(run: Run, arguments: list[str]) -> None:
    ended = run("transcribe", *arguments)
    assert (ended.code, ended.out) == (2, "")


def test_a_folder_without_recordings_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    assert run("transcribe", tmp_path).code == 2


def test_an_output_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out" / "speech.txt").mkdir(parents=True)
    ended = run("transcribe", samples_folder() / "speech.wav", "--output-dir", tmp_path / "out")
    assert (ended.code, len(ended.errors)) == (1, 1)
    assert "--output-dir" in ended.errors[0]


def test_a_name_that_is_too_long_is_told_like_one_that_is_missing(run: Run, tmp_path: Path) -> None:
    ended = run("transcribe", "x" * 300, samples_folder() / "speech.wav")
    assert (ended.code, ended.out, len(ended.errors)) == (1, f"{expected_of('speech.wav')}\n", 1)
    assert "cannot open the sound" in ended.errors[0]


def test_progress_is_shown_of_each_file_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    from gemma_mlx.terminal.transcribe_progress import TranscribeProgress

    with TranscribeProgress(2, shown=True) as progress:
        progress.begin("talk\x1b.wav", 60.0)
        progress.at(30.0)
        progress.end()
        assert progress._bars is not None
        assert progress._bars.tasks[0].fields["facts"] == "1 of 2"
        progress.end()  # of one that could not even be opened
        assert [task.fields["facts"] for task in progress._bars.tasks] == ["2 of 2"]
    assert "\x1b.wav" not in capsys.readouterr().err
    with TranscribeProgress(1, shown=False) as progress:
        progress.begin("a", None)
        progress.at(1.0)
        progress.end()
    assert capsys.readouterr().err == ""


def test_failing_to_hear_does_not_hide_what_went_wrong(run: Run, talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise GemmaError("the model is tired; wait")

    monkeypatch.setattr(transcribe_run.TranscribeRun, "_file", broken)
    ended = run("transcribe", talk)
    assert (ended.code, ended.errors) == (1, ["error: the model is tired; wait"])
