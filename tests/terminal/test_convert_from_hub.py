"""gemma-mlx convert google/gemma-4-12B-it: downloading, streaming, and what a hub may do to both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from convert import remote, source_tensor, write_behind
from convert.conversion import convert_checkpoint
from gemma_mlx.home import find_model
from tests.convert.small_source import write_source
from tests.hub_server import FIRST_COMMIT, REPOSITORY, SECOND_COMMIT, Hub, serving
from tests.terminal.conftest import Run

NAME = REPOSITORY


def use_endpoint(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does, which is read when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = write_source(tmp_path / "on-the-hub")
    for name in ("model.bin", "model.pt", "setup.py", "model.gguf", "README.md"):
        (folder / name).write_bytes(b"never asked for")
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(write_behind, "SYNC_BYTES", 10_000)
    monkeypatch.setattr(source_tensor, "SLICE_NUMBERS", 2048)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    with serving(Hub(folder)) as hub:
        use_endpoint(hub.endpoint, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda seconds: None))
        yield hub


@pytest.fixture
def plain(hub: Hub, tmp_path: Path) -> dict[str, bytes]:
    """What the same files give from a folder."""
    convert_checkpoint(hub.folder, tmp_path / "plain", "4bit")
    return contents(tmp_path / "plain")


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a converted folder, without what says where it came from: the card, a part of the index."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"}
    index = json.loads(found.pop("model.safetensors.index.json"))
    return found | {"weight_map": json.dumps(index["weight_map"]).encode()}


def written_revision(folder: Path) -> tuple[str, str]:
    metadata = json.loads((folder / "model.safetensors.index.json").read_text())["metadata"]
    return metadata["source"], metadata["source_revision"]


@pytest.mark.parametrize("flags", [[], ["--low-disk"]])
def test_a_name_gives_what_its_files_give_and_says_which_commit(
    run: Run, hub: Hub, plain: dict[str, bytes], tmp_path: Path, flags: list[str]
) -> None:
    ended = run("convert", NAME, tmp_path / "out", "--json", *flags)
    assert ended.code == 0, ended.err
    assert contents(tmp_path / "out") == plain
    assert written_revision(tmp_path / "out") == (NAME, FIRST_COMMIT)
    told = json.loads(ended.out)
    assert (told["source"], told["revision"], told["recipe"]) == (NAME, FIRST_COMMIT, "4bit")
    assert told["tallies"]["q_proj"]["relative_error"] < 0.1
    assert told["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert FIRST_COMMIT[:12] in ended.err
    assert not hub.asked_files & {"model.bin", "model.pt", "setup.py", "model.gguf", "README.md"}
    cached = list((tmp_path / "cache").rglob("*.safetensors")) if not flags else []
    assert len(cached) == (not flags)
    assert find_model() == tmp_path / "out"


def test_low_disk_asks_for_each_byte_once_in_one_answer(run: Run, hub: Hub, tmp_path: Path) -> None:
    assert run("convert", NAME, tmp_path / "out", "--low-disk").code == 0
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("*.safetensors"))
    assert hub.ranges == ["bytes=0-"]


def test_a_download_is_used_again_and_needs_no_network_then(run: Run, hub: Hub, tmp_path: Path) -> None:
    assert run("convert", NAME, tmp_path / "out").code == 0
    sent = hub.sent_bytes
    assert run("convert", NAME, tmp_path / "again", "--recipe", "8bit").code == 0
    assert hub.sent_bytes == sent
    hub.refuses = (503, "")
    ended = run("convert", f"{NAME}@{FIRST_COMMIT}", tmp_path / "offline")
    assert ended.code == 1
    assert "answered 503" in ended.errors[0]


def test_a_download_that_broke_off_goes_on_where_it_was(
    run: Run, hub: Hub, plain: dict[str, bytes], tmp_path: Path
) -> None:
    size = (hub.folder / "model.safetensors").stat().st_size
    hub.connections_that_end, hub.ends_after_bytes, hub.down_after_bytes = 7, 1500, size // 2
    broken = run("convert", NAME, tmp_path / "out")
    assert broken.code == 1
    assert len(broken.errors) == 1
    assert not (tmp_path / "out.partial").exists()
    hub.sent_bytes, hub.down_after_bytes = 0, None
    assert run("convert", NAME, tmp_path / "out").code == 0
    assert size // 2 <= hub.sent_bytes < size // 2 + 5000
    assert contents(tmp_path / "out") == plain


def test_other_bytes_than_the_hub_promised_are_thrown_away(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.damaged = True
    ended = run("convert", NAME, tmp_path / "out")
    assert ended.code == 1
    assert "arrived with other bytes" in ended.errors[0]
    assert not list((tmp_path / "cache").rglob("*-part"))
    hub.damaged = False
    assert run("convert", NAME, tmp_path / "out").code == 0


def test_dropped_connections_are_opened_again_where_they_ended(
    run: Run, hub: Hub, plain: dict[str, bytes], tmp_path: Path
) -> None:
    hub.connections_that_end, hub.ends_after_bytes = 8, 20_000
    ended = run("convert", NAME, tmp_path / "out", "--low-disk")
    assert ended.code == 0, ended.err
    assert contents(tmp_path / "out") == plain
    assert len(hub.ranges) > 8


def test_a_connection_that_stays_down_keeps_the_work(
    run: Run, hub: Hub, plain: dict[str, bytes], tmp_path: Path
) -> None:
    size = (hub.folder / "model.safetensors").stat().st_size
    hub.down_after_bytes = size // 2
    ended = run("convert", NAME, tmp_path / "out", "--low-disk")
    assert ended.code == 1
    assert "failed 5 times" in ended.errors[0]
    assert "out.partial keeps what is done" in ended.errors[0]
    hub.down_after_bytes = None
    hub.ranges.clear()
    assert run("convert", NAME, tmp_path / "out", "--low-disk").code == 0
    assert contents(tmp_path / "out") == plain
    assert int(hub.ranges[-1].removeprefix("bytes=")[:-1]) > size // 4


def test_main_that_moved_between_runs_is_noticed(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.down_after_bytes = (hub.folder / "model.safetensors").stat().st_size // 2
    assert run("convert", NAME, tmp_path / "out", "--low-disk").code == 1
    hub.down_after_bytes, hub.commit = None, SECOND_COMMIT
    ended = run("convert", NAME, tmp_path / "out", "--low-disk")
    assert ended.code == 2
    assert f"unfinished conversion of another revision ({FIRST_COMMIT})" in ended.errors[0]
    assert run("convert", NAME, tmp_path / "out", "--low-disk", "--revision", FIRST_COMMIT).code == 0
    assert written_revision(tmp_path / "out") == (NAME, FIRST_COMMIT)


def test_a_server_without_ranges_is_named_with_the_plain_way(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.knows_ranges = False
    ended = run("convert", NAME, tmp_path / "out", "--low-disk")
    assert ended.code == 1
    assert "does not send parts of files; convert without --low-disk" in ended.errors[0]
    assert not (tmp_path / "out.partial").exists()


REFUSALS = [
    ("refuses", (401, "GatedRepo"), "accept its licence: do that at {endpoint}/" + NAME + ", then run hf auth login"),
    ("refuses_files", (403, "GatedRepo"), "accept its licence"),
    ("refuses", (401, "RepoNotFound"), "check the name, or run hf auth login"),
    ("refuses", (404, "RepoNotFound"), "has no model google/gemma-4-12B-it for you"),
    ("refuses_files", (403, ""), "answered 403; run hf auth login"),
    ("refuses", (500, ""), "answered 500; wait a little"),
]


@pytest.mark.parametrize(("when", "answer", "told"), REFUSALS)
@pytest.mark.parametrize("flags", [[], ["--low-disk"]])
def test_what_the_hub_refuses_is_one_line_with_the_next_step(
    run: Run, hub: Hub, tmp_path: Path, when: str, answer: tuple[int, str], told: str, flags: list[str]
) -> None:
    setattr(hub, when, answer)
    ended = run("convert", NAME, tmp_path / "out", *flags)
    assert (ended.code, ended.out) == (1, "")
    assert told.format(endpoint=hub.endpoint) in ended.errors[0]
    assert len(ended.errors) == 1
    assert not list(tmp_path.glob("out*"))


def test_an_unknown_revision_is_named(run: Run, hub: Hub, tmp_path: Path) -> None:
    ended = run("convert", NAME, tmp_path / "out", "--revision", "v9")
    assert ended.code == 1
    assert f"has no revision 'v9'; its revisions are at {hub.endpoint}/{NAME}/commits" in ended.errors[0]


def test_without_a_network_a_name_is_one_line(
    run: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_endpoint("http://127.0.0.1:9", monkeypatch)
    ended = run("convert", NAME, tmp_path / "out")
    assert ended.code == 1
    assert "cannot reach http://127.0.0.1:9; check the network" in ended.errors[0]


def test_without_a_network_what_was_downloaded_is_used(
    run: Run, hub: Hub, plain: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("convert", f"{NAME}@{FIRST_COMMIT}", tmp_path / "out").code == 0
    use_endpoint("http://127.0.0.1:9", monkeypatch)
    ended = run("convert", f"{NAME}@{FIRST_COMMIT}", tmp_path / "again")
    assert ended.code == 0, ended.err
    assert "cannot be reached" in ended.err
    assert contents(tmp_path / "again") == plain
    assert written_revision(tmp_path / "again") == (NAME, FIRST_COMMIT)


def test_space_for_both_is_checked_before_the_download(
    run: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (hub.folder / "model.safetensors").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size + 1000))
    ended = run("convert", NAME, tmp_path / "out")
    assert ended.code == 1
    assert "are still to be written to" in ended.errors[0]
    assert "blobs and " in ended.errors[0]
    assert hub.sent_bytes == 0


@pytest.mark.parametrize("flags", [["--low-disk"], ["--revision", "main"]])
def test_flags_of_the_hub_do_nothing_for_a_folder_and_are_refused(
    run: Run, hub: Hub, tmp_path: Path, flags: list[str]
) -> None:
    ended = run("convert", hub.folder, tmp_path / "out", *flags)
    assert ended.code == 2
    assert f"{flags[0]} has no effect on a folder" in ended.errors[0]


def test_two_revisions_are_refused(run: Run, hub: Hub, tmp_path: Path) -> None:
    ended = run("convert", f"{NAME}@main", tmp_path / "out", "--revision", "main")
    assert ended.code == 2
    assert not hub.asked_files
