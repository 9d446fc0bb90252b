from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from gemma_mlx.errors import UsageError
from gemma_mlx.home import samples_folder
from gemma_mlx.terminal.input_files import PICTURE_AND_VIDEO_SUFFIXES, named_files
from gemma_mlx.terminal.journal import Journal, file_digest
from gemma_mlx.terminal.sidecars import Sidecars
from tests.terminal.conftest import Run

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, one that is none, and what is no picture by its name."""
    folder = tmp_path / "pictures"
    (folder / "within").mkdir(parents=True)
    for index, colour in enumerate(["red", "green", "blue", "orange"]):
        picture = Image.new("RGB", (240, 240), "white")
        ImageDraw.Draw(picture).ellipse((40, 40, 140 + 20 * index, 140 + 20 * index), fill=colour)
        picture.save(folder / f"{index}.png")
    (folder / "bad.png").write_bytes((folder / "1.png").read_bytes()[:100])
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    (folder / "within" / "4.JPG").write_bytes(b"")
    return folder


def test_a_folder_stands_for_its_pictures_and_a_pattern_for_what_fits(folder: Path) -> None:
    def names(*asked: str) -> list[str]:
        return [str(Path(file).relative_to(folder)) for file in named_files(asked, PICTURE_AND_VIDEO_SUFFIXES)]

    assert names(str(folder)) == ["0.png", "1.png", "2.png", "3.png", "bad.png"]
    (folder / "within" / "raw.DNG").write_bytes(b"")
    (folder / "within" / "camcorder.m2ts").write_bytes(b"")
    assert names(f"{folder}/within") == ["within/4.JPG", "within/camcorder.m2ts", "within/raw.DNG"]
    assert names(f"{folder}/[01].png", f"{folder}/**/*.JPG") == ["0.png", "1.png", "within/4.JPG"]
    assert names(f"{folder}/missing.png") == ["missing.png"]  # is told when its turn comes
    assert names(f"{folder}/1.png", f"{folder}/[01].png", f"{folder}/../{folder.name}/0.png") == ["1.png", "0.png"]
    (folder / "a[1].png").write_bytes(b"")
    assert names(f"{folder}/a[1].png") == ["a[1].png"]


def test_a_folder_or_pattern_that_stands_for_nothing_is_wrong_usage(run: Run, folder: Path) -> None:
    (folder / "empty").mkdir()
    for asked in (folder / "empty", f"{folder}/*.bmp"):
        ended = run("caption", asked)
        assert (ended.code, ended.out, len(ended.errors)) == (2, "", 1)


def test_a_folder_is_captioned_and_a_bad_file_is_told_by_name(run: Run, folder: Path) -> None:
    ended = run("caption", folder, "--format", "jsonl", "-n", 3)
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [Path(line["file"]).name for line in found] == ["0.png", "1.png", "2.png", "3.png"]
    [error] = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    assert error["file"] == str(folder / "bad.png")
    assert ended.code == 1
    assert "4 of 5 files done, 1 failed" in ended.err


def test_what_was_captioned_once_is_not_captioned_again(run: Run, folder: Path, own_home: Path) -> None:
    first = run("caption", folder, "--resume", "-n", 4, "--json", "-q")
    [journal] = (own_home / "captions").iterdir()
    kept = journal.read_bytes()
    assert len(kept.splitlines()) == 4
    assert journal.stat().st_mode & 0o777 == 0o600
    again = run("caption", folder, "--resume", "-n", 4, "--json", "-q")
    assert again.out == first.out  # figures and all: nothing was computed
    assert journal.read_bytes() == kept
    (folder / "0.png").rename(folder / "moved.png")
    moved = run("caption", folder / "moved.png", "--resume", "-n", 4, "--json", "-q")
    assert json.loads(moved.out)["text"] == json.loads(first.out.splitlines()[0])["text"]
    assert journal.read_bytes() == kept
    for other in (["-n", 3], ["-n", 4, "--prompt", "What colour?"], ["-n", 4, "--detail", 140]):
        run("caption", folder / "1.png", "--resume", "--json", "-q", *other)
    assert len(list((own_home / "captions").iterdir())) == 4


def test_a_killed_batch_goes_on_where_it_was(folder: Path, own_home: Path) -> None:
    command = [sys.executable, "-m", "gemma_mlx", "caption", "--resume", "--json", "-q", "-n", "4", str(folder)]
    environment = {**os.environ, "GEMMA_MLX_HOME": str(own_home)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as killed:
        assert killed.stdout is not None
        lines = [killed.stdout.readline(), killed.stdout.readline()]
        killed.kill()
    assert killed.returncode == -signal.SIGKILL
    [journal] = (own_home / "captions").iterdir()
    with journal.open("ab") as stream:
        stream.write(b'{"digest": "cut')  # as a kill in the middle of a line leaves it
    ended = subprocess.run(command, capture_output=True, env=environment, check=False)
    shown = ended.stdout.splitlines(keepends=True)
    assert ended.returncode == 1
    assert shown[:2] == lines
    assert len(shown) == 4
    digests = [json.loads(line)["digest"] for line in journal.read_bytes().splitlines()]
    assert len(digests) == len(set(digests)) == 4


def test_a_damaged_answer_is_asked_for_once_more(run: Run, folder: Path, own_home: Path) -> None:
    command = ("caption", folder / "0.png", folder / "1.png", "--resume", "-n", 2, "-q")
    first = run(*command)
    [journal] = (own_home / "captions").iterdir()
    damaged, whole = (json.loads(line) for line in journal.read_bytes().splitlines())
    del damaged["answer"]["text"]
    journal.write_text(json.dumps(damaged) + "\n" + json.dumps(whole) + "\n", encoding="utf-8")
    again = run(*command)
    assert (again.code, again.out) == (0, first.out)
    assert len(journal.read_bytes().splitlines()) == 3


def test_two_processes_do_not_share_a_journal(own_home: Path) -> None:
    with Journal({"a": 1}), pytest.raises(Exception, match="another process"), Journal({"a": 1}):
        pass
    with Journal({"a": 1}) as journal, Journal({"a": 2}):
        assert journal.find(file_digest(b"x")) is None


def test_answers_kept_by_a_version_with_other_figures_are_not_taken(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gemma_mlx import answer

    @dataclass(frozen=True)
    class OtherReply(answer.Reply):
        power_w: float = 0.0

    command = ("caption", folder / "0.png", "--resume", "-n", 4, "--json", "-q")
    with monkeypatch.context() as other:
        other.setattr(answer, "Reply", OtherReply)
        assert run(*command).code == 0
    ended = run(*command)
    assert (ended.code, ended.errors) == (0, [])
    assert "power_w" not in json.loads(ended.out)


def test_a_caption_is_never_written_over_its_picture(run: Run, folder: Path) -> None:
    picture = folder / "0.png"
    picture.rename(folder / "0.txt")
    whole = (folder / "0.txt").read_bytes()
    ended = run("caption", folder / "0.txt", "--format", "txt-sidecar", "--overwrite", "-n", 2)
    assert (ended.code, (folder / "0.txt").read_bytes()) == (2, whole)


def test_a_schema_nested_beyond_reason_is_wrong_usage(run: Run, folder: Path, tmp_path: Path) -> None:
    for depth in (600, 100_000):
        (tmp_path / "deep.json").write_text('{"items":' * depth + "{}" + "}" * depth, encoding="utf-8")
        ended = run("caption", folder / "0.png", "--json-schema", tmp_path / "deep.json")
        assert (ended.code, len(ended.errors)) == (2, 1)


def test_captions_go_beside_the_pictures(run: Run, folder: Path) -> None:
    ended = run("caption", folder / "0.png", folder / "1.png", "--format", "txt-sidecar", "-n", 4, "-q")
    assert (ended.code, ended.out) == (0, "")
    said = (folder / "0.txt").read_text(encoding="utf-8")
    assert said.strip()
    assert (folder / "0.txt").stat().st_mode & 0o777 == (folder / "0.png").stat().st_mode & 0o666
    ended = run("caption", folder / "0.png", "--format", "xmp", "-n", 4, "-q", "--json")
    assert json.loads(ended.out)["sidecar"] == str(folder / "0.xmp")
    assert said.strip().encode() in (folder / "0.xmp").read_bytes()


def test_a_film_of_the_name_of_a_picture_has_a_sidecar_of_its_own(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("a.HEIC", "a.MOV", "b.MOV")]
    sidecars = Sidecars(files, "xmp", overwrite=False)
    assert [sidecars.path(file).name for file in files] == ["a.xmp", "a.MOV.xmp", "b.xmp"]
    with pytest.raises(UsageError, match="others have the place of"):
        Sidecars(["a.gif", "a.jpg.png", "a.jpg"], "xmp", overwrite=False)


def test_what_somebody_wrote_beside_a_picture_stays(run: Run, folder: Path) -> None:
    (folder / "0.txt").write_text("mine", encoding="utf-8")
    (folder / "1.xmp").write_text("<x:xmpmeta xmlns:x='adobe:ns:meta/'/>", encoding="utf-8")
    ended = run("caption", folder / "0.png", folder / "2.png", "--format", "txt-sidecar", "-n", 3)
    assert ended.code == 1
    assert "0.txt is there already" in ended.err
    assert (folder / "0.txt").read_text(encoding="utf-8") == "mine"
    assert (folder / "2.txt").exists()
    ended = run("caption", folder / "1.png", "--format", "xmp", "-n", 3)
    assert (ended.code, "1.xmp" in ended.err) == (1, True)
    ended = run("caption", folder / "0.png", "--format", "txt-sidecar", "--overwrite", "-n", 3)
    assert ended.code == 0
    assert (folder / "0.txt").read_text(encoding="utf-8") != "mine"


def test_our_own_sidecars_are_written_again(run: Run, folder: Path) -> None:
    for prompt in ("What is shown?", "Which colour?"):
        assert run("caption", folder / "0.png", "--format", "xmp", "-n", 4, "--prompt", prompt).code == 0
    for _ in range(2):  # the second time, the journal says that the text is ours
        assert run("caption", folder / "0.png", "--format", "txt-sidecar", "--resume", "-n", 4).code == 0
    (folder / "0.txt").unlink()
    assert run("caption", folder / "0.png", "--format", "txt-sidecar", "--resume", "-n", 4).code == 0
    assert (folder / "0.txt").exists()


def test_json_that_follows_a_schema_with_the_schema_read_once(run: Run, folder: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    ended = run("caption", folder / "0.png", folder / "1.png", "--json-schema", schema, "--json", "-n", 60)
    first, second = (json.loads(line) for line in ended.out.splitlines())
    for reply in (first, second):
        assert json.loads(reply["text"])["colour"] in ("red", "green")
    assert first["reused_tokens"] == 0
    assert second["reused_tokens"] > len(json.dumps(SCHEMA)) / 4
    asked = run("ask", "What is shown?", "--image", folder / "0.png", "--json-schema", schema)
    assert set(json.loads(asked.out)) == {"colour", "count"}
    for verb in (["ask", "What is shown?", "--image"], ["caption"]):
        short = run(*verb, folder / "0.png", "--json-schema", schema, "-n", 5)
        assert (short.code, short.out) == (2, "")
        assert "5 may come" in short.err
    thought = run("caption", folder / "0.png", "--json-schema", schema, "--thinking", "-n", 60)
    assert set(json.loads(thought.out)) == {"colour", "count"}


@pytest.mark.parametrize(
    ("written", "named"),
    [("{", "is not JSON"), ("true", "admits all"), ('{"unheard": 1}', "'unheard'"), ("[]", "a schema is an object")],
)
def test_a_schema_that_cannot_be_used_is_wrong_usage(run: Run, tmp_path: Path, written: str, named: str) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(written, encoding="utf-8")
    for verb in (["ask", "Hello"], ["caption", "a.png"]):
        ended = run(*verb, "--json-schema", schema)
        assert (ended.code, ended.out, len(ended.errors)) == (2, "", 1)
        assert named in ended.err


@pytest.mark.parametrize(
    "flags",
    [
        ["--overwrite"],
        ["--format", "xmp", "-"],
        ["--json-schema", "SCHEMA", "--draft", "mtp"],
        ["--json-schema", "SCHEMA", "--drafter", "."],
        ["--json-schema", "SCHEMA", "--ocr"],
        ["--json-schema", "missing.json"],
        ["--detail", "300"],
        ["--format", "xmp", ""],
    ],
)
def test_flags_that_contradict_each_other_are_wrong_usage(
    run: Run, folder: Path, tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (tmp_path / "schema.json").write_text("{}", encoding="utf-8")
    ended = run("caption", "0.png", *[str(tmp_path / "schema.json") if flag == "SCHEMA" else flag for flag in flags])
    assert (ended.code, ended.out) == (2, "")


def test_text_is_read_and_a_video_is_not(run: Run, tmp_path: Path) -> None:
    ended = run("caption", "--ocr", samples_folder() / "text-00.png")
    expected = json.loads((samples_folder() / "samples.json").read_text(encoding="utf-8"))["samples"]
    assert [ended.out.strip()] == [sample["expected"] for sample in expected if sample["file"] == "text-00.png"]
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(40))
    ended = run("caption", "--ocr", tmp_path / "a.mp4")
    assert ended.code == 1
    assert "--ocr reads pictures" in ended.err
