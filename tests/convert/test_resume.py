"""A conversion that is stopped at any point goes on, and ends with the bytes of one that was not."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from convert import journal, shards, write_behind
from convert.conversion import ConversionReport, convert_checkpoint
from convert.journal import Journal
from convert.partial_folder import JOURNAL_FILE
from convert.shards import ShardWriter
from convert.tally import Tally
from gemma_mlx.errors import CheckpointError, UsageError
from tests.convert.converting import SHARD_BYTES
from tests.convert.small_source import write_source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "SYNC_BYTES", 10_000)
    monkeypatch.setattr("convert.source_tensor.SLICE_NUMBERS", 2048)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def convert(source: Path, destination: Path, **named: object) -> ConversionReport:
    return convert_checkpoint(source, destination, "4bit", shard_bytes=SHARD_BYTES, **named)  # type: ignore[arg-type]


class Stopped(BaseException):
    """As Ctrl-C, but ours."""


def stop_at(share: float, source: Path, destination: Path) -> Path:
    """Leaves the conversion at `share` of its bytes; what it left."""

    def stop(done: int, total: int) -> None:
        if done >= share * total:
            raise Stopped

    with pytest.raises(Stopped):
        convert(source, destination, progress=stop)
    assert not destination.exists()
    return destination.with_name(destination.name + ".partial")


def _start(source: Path, destination: Path, *more: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.convert.converting", str(source), str(destination), *map(str, more)]
    return subprocess.Popen(command)


def test_20_kills_at_random_places_and_moments_change_no_byte(source: Path, tmp_path: Path) -> None:
    """Each run goes on where the killed one before it ended; one that came to its end is begun again."""
    began = time.perf_counter()
    assert _start(source, tmp_path / "whole").wait() == 0
    whole, run_s = contents(tmp_path / "whole"), time.perf_counter() - began
    written = sum(len(content) for name, content in whole.items() if name.endswith(".safetensors"))
    chance, out, kills, went_on, rounds = random.Random(4), tmp_path / "out", 0, 0, 0
    while kills < 20 or went_on < 5:
        rounds += 1
        by_time = rounds % 3 == 0  # in the other rounds it kills itself after so many bytes
        went_on += bool(Journal(tmp_path / "out.partial" / JOURNAL_FILE).finished)
        began = time.perf_counter()
        process = _start(source, out, *([] if by_time else [chance.randrange(written // 3)]))
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.5, 1.0) * run_s if by_time else None)
            run_s = min(run_s, time.perf_counter() - began) if by_time else run_s
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        if out.exists():  # whole, also where the kill came after the renaming
            assert contents(out) == whole
            shutil.rmtree(out)
    assert _start(source, out).wait() == 0
    assert contents(out) == whole
    assert not (tmp_path / "out.partial").exists()


def test_what_is_finished_is_not_done_again_and_the_report_is_the_same(source: Path, tmp_path: Path) -> None:
    whole = convert(source, tmp_path / "whole")
    left = stop_at(0.6, source, tmp_path / "out")
    assert 0 < len(Journal(left / JOURNAL_FILE).finished) < whole.tensors
    seen: list[tuple[int, int]] = []
    report = convert(source, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen[0][0] > 0.3 * seen[0][1]
    assert seen[-1][0] == seen[-1][1]
    assert report.changes == whole.changes
    assert replace(report, seconds=0) == replace(whole, seconds=0)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: os.truncate(file, file.stat().st_size // 2)])
def test_lost_bytes_are_noticed_and_nothing_is_built_on_them(
    source: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    convert(source, tmp_path / "whole")
    left = stop_at(0.8, source, tmp_path / "out")
    harm(min(left.rglob("*.safetensors")))
    with pytest.raises(CheckpointError, match="has lost numbers that were written"):
        convert(source, tmp_path / "out")
    convert(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_journal_torn_at_any_byte_counts_as_far_as_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, tally = Journal(path), Tally(squared_error=0.1, squared_sum=1e-30)
    journal.begin({"recipe": "4bit"})
    ends = [path.stat().st_size]
    for name in ("a", "b", "c"):
        journal.add({name: tally})
        ends.append(path.stat().st_size)
    text = path.read_bytes()
    for length in range(len(text) + 1):
        path.write_bytes(text[:length])
        torn = Journal(path)
        assert (torn.identity is None) == (length < ends[0])
        assert list(torn.finished) == ["a", "b", "c"][: sum(end <= length for end in ends[1:])]
        if torn.identity is not None:
            torn.add({"d": tally})
            assert Journal(path).finished == {**torn.finished, "d": tally}


def test_a_conversion_goes_on_from_a_journal_torn_anywhere(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "whole")
    stop_at(0.8, source, tmp_path / "out").rename(tmp_path / "kept")
    text = (tmp_path / "kept" / JOURNAL_FILE).read_bytes()
    for length in {0, 1, *random.Random(1).sample(range(len(text)), 6)}:
        shutil.copytree(tmp_path / "kept", tmp_path / "out.partial")
        (tmp_path / "out.partial" / JOURNAL_FILE).write_bytes(text[:length])
        convert(source, tmp_path / "out")
        assert contents(tmp_path / "out") == contents(tmp_path / "whole")
        shutil.rmtree(tmp_path / "out")


def test_lines_that_are_none_end_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path).begin({"recipe": "4bit"})
    whole = path.read_bytes()
    for line in (b"\0\0\0\n", b"[1]\n", b'{"tensor": "a"}\n', b'{"tensor": "a", "tally": {"other": 1}}\n', b"\xff\n"):
        path.write_bytes(whole + line + b'{"tensor": "b", "tally": {}}\n')
        assert Journal(path).finished == {}


def _differs(source: Path, tmp_path: Path, what: str, recipe: str = "4bit") -> None:
    """A run that finds the unfinished work of another one is refused, and that work kept."""
    before = contents(tmp_path / "out.partial" / "folder")
    with pytest.raises(UsageError, match=f"of another {what}.*the command that began it, or .* with --restart"):
        convert_checkpoint(source, tmp_path / "out", recipe, shard_bytes=SHARD_BYTES)
    assert contents(tmp_path / "out.partial" / "folder") == before


def test_another_recipe_is_refused_until_it_restarts(source: Path, tmp_path: Path) -> None:
    stop_at(0.5, source, tmp_path / "out")
    _differs(source, tmp_path, r"recipe \(4bit\)", "8bit")
    convert_checkpoint(source, tmp_path / "out", "8bit", restart=True)
    convert_checkpoint(source, tmp_path / "whole", "8bit")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_source_that_changed_is_noticed(source: Path, tmp_path: Path) -> None:
    stop_at(0.5, source, tmp_path / "out")
    status = (source / "model.safetensors").stat()
    os.utime(source / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    _differs(source, tmp_path, "model.safetensors")
    os.utime(source / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns))
    (source / "chat_template.jinja").write_text("{{ messages }}")
    _differs(source, tmp_path, "chat_template.jinja")


def test_another_version_of_the_conversion_is_noticed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(0.5, source, tmp_path / "out")
    monkeypatch.setattr("convert.conversion.source_hash", lambda folder: "other")
    _differs(source, tmp_path, "version of gemma-mlx")


@pytest.mark.parametrize("library", ["mlx", "numpy"])
def test_another_version_of_what_computes_is_noticed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    stop_at(0.5, source, tmp_path / "out")
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "other" if name == library else real(name))
    _differs(source, tmp_path, "version of gemma-mlx")


def test_a_second_process_is_refused_while_the_first_one_lives(source: Path, tmp_path: Path) -> None:
    refused = []

    def meanwhile(done: int, total: int) -> None:
        if not refused:
            ended = subprocess.run(
                [sys.executable, "-m", "tests.convert.converting", source, tmp_path / "out"], stderr=subprocess.PIPE
            )
            refused.append(ended.stderr.decode())

    convert(source, tmp_path / "out", progress=meanwhile)
    assert "another conversion is writing" in refused[0]
    assert (tmp_path / "out").is_dir()


def test_a_folder_that_another_process_has_just_made_is_left_alone(source: Path, tmp_path: Path) -> None:
    partial = tmp_path / "new" / "out.partial"
    partial.mkdir(parents=True)
    other = os.open(partial, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(CheckpointError, match="another conversion is writing"):
        convert(source, tmp_path / "new" / "out")
    assert partial.is_dir()
    os.close(other)
    convert(source, tmp_path / "new" / "out")


def test_a_run_killed_between_renaming_and_cleaning_up_leaves_nothing_that_counts(source: Path, tmp_path: Path) -> None:
    """Its journal says that all is done; when the folder it made is gone, all is to be done again."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("convert.partial_folder._empty", lambda folder: None)
        convert(source, tmp_path / "out")
    whole = contents(tmp_path / "out")
    assert Journal(tmp_path / "out.partial" / JOURNAL_FILE).finished
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        convert(source, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    convert(source, tmp_path / "out")
    assert contents(tmp_path / "out") == whole
    assert not (tmp_path / "out.partial").exists()


def test_a_disk_that_fills_up_keeps_the_work(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(source, tmp_path / "whole")
    write_at, left = ShardWriter._write_at, 90_000

    def write_until_full(self: ShardWriter, place: int, data: bytes) -> None:
        nonlocal left
        left -= len(data)
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_at(self, place, data)

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "_write_at", write_until_full)
        with pytest.raises(
            CheckpointError, match=r"No space left on device; out\.partial keeps what is done"
        ) as caught:
            convert(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert Journal(tmp_path / "out.partial" / JOURNAL_FILE).finished
    convert(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_did_not_reach_the_disk_is_not_in_the_journal(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that failed once may say at the next try that all is well; its first word counts."""
    tries = []

    def fail_once(self: ShardWriter) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ShardWriter, "sync", fail_once)
    with pytest.raises(CheckpointError, match="Input/output error"):
        convert(source, tmp_path / "out")
    assert Journal(tmp_path / "out.partial" / JOURNAL_FILE).finished == {}


def test_the_names_of_shards_and_journal_are_on_the_disk_before_the_journal_counts_on_them(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a journal without its shards would leave holes where it says that numbers are."""
    named: set[str] = set()
    bring, add = shards.bring_path_to_disk, Journal.add

    def bring_names(folder: Path) -> None:
        bring(folder)
        named.update(path.name for path in folder.iterdir())

    def add_after_names(self: Journal, finished: Mapping[str, Tally]) -> None:
        existing = {path.name for path in (tmp_path / "out.partial/folder").glob("*.safetensors")}
        assert {JOURNAL_FILE, *existing} <= named
        add(self, finished)

    for module in (shards, journal):
        monkeypatch.setattr(module, "bring_path_to_disk", bring_names)
    monkeypatch.setattr(Journal, "add", add_after_names)
    convert(source, tmp_path / "out")


def test_work_that_was_kept_counts_for_the_space(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(source, tmp_path / "whole")
    needed = sum(map(len, contents(tmp_path / "whole").values()))
    stop_at(0.9, source, tmp_path / "out")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed // 2))
    with pytest.raises(CheckpointError, match="GB are still to be written"):
        convert(source, tmp_path / "other")
    assert not (tmp_path / "other.partial").exists()
    convert(source, tmp_path / "out")


@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_that_is_no_conversion_is_never_emptied(source: Path, tmp_path: Path, restart: bool) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine").touch()
    with pytest.raises(UsageError, match="is no unfinished conversion"):
        convert(source, tmp_path / "out", restart=restart)
    assert (tmp_path / "out.partial" / "mine").exists()


def test_a_damaged_source_leaves_nothing_of_a_conversion_that_went_on(source: Path, tmp_path: Path) -> None:
    stop_at(0.3, source, tmp_path / "out")

    def truncate(done: int, total: int) -> None:
        with (source / "model.safetensors").open("rb+") as stream:
            stream.truncate(20_000)

    with pytest.raises(CheckpointError, match="ended inside"):
        convert(source, tmp_path / "out", progress=truncate)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_kill_while_what_was_left_is_thrown_away_leaves_what_the_next_run_knows(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the order is in which the disk lists a folder."""
    left, listed = stop_at(0.6, source, tmp_path / "out"), Path.iterdir

    def journal_first(folder: Path) -> list[Path]:
        return sorted(listed(folder), key=lambda path: path.name != JOURNAL_FILE)

    def killed(folder: Path) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", journal_first)
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(Stopped):
            convert_checkpoint(source, tmp_path / "out", "8bit", restart=True)
    assert (left / JOURNAL_FILE).exists()
    convert_checkpoint(source, tmp_path / "out", "8bit", restart=True)
    assert not left.exists()
