"""A session goes into its file whole or not at all, whatever happens to who writes it, and nothing else is harmed."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path

import mlx.core as mx
import pytest

from gemma_mlx.decoding.contents import Contents
from gemma_mlx.decoding.saved_session import check_target, resume, save
from gemma_mlx.decoding.session import Session
from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.replace_file import replacing
from tests.allocations import settled_bytes
from tests.decoding.test_saved_session import IDENTITY, MORE, resumed
from tests.decoding.test_session import LONG, close, cold


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session"


def test_only_the_owner_can_read_it(tiny_model: Gemma4, path: Path) -> None:
    beside = path.with_name(".session.gemma-mlx-new")
    beside.write_bytes(b"left by a writer that was killed")
    beside.chmod(0o644)
    save(Session(tiny_model), path, IDENTITY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not beside.exists()


def test_only_a_session_is_ever_replaced(tiny_model: Gemma4, path: Path) -> None:
    path.write_text("The only copy of a thesis. " * 10, encoding="utf-8")
    with pytest.raises(UsageError, match="is no saved session"):
        save(Session(tiny_model), path, IDENTITY)
    assert path.read_text(encoding="utf-8").startswith("The only copy")
    link = path.with_name("link")
    link.symlink_to(path)
    for place in (link, path.parent, Path(os.devnull)):
        with pytest.raises(UsageError, match="not an ordinary file"):
            check_target(place)
    with pytest.raises(UsageError, match="there is no folder"):
        check_target(path.parent / "missing" / "session")
    with pytest.raises(UsageError, match="File name too long"):
        check_target(path.with_name("n" * 300))
    path.write_bytes(b"")
    check_target(path)


def test_a_session_with_an_answer_on_its_way_is_not_saved(tiny_model: Gemma4, path: Path) -> None:
    session = Session(tiny_model)
    session.prefill(LONG)
    save(session, path, IDENTITY)
    tiny_model(tiny_model.embed_tokens(mx.array([[50]])), session.caches)
    with pytest.raises(UsageError, match="an answer is still on its way"):
        save(session, path, IDENTITY)
    assert resumed(tiny_model, path).offset == len(LONG)


def test_a_full_disk_leaves_the_old_file(tiny_model: Gemma4, path: Path) -> None:
    session = Session(tiny_model)
    session.prefill(LONG[:6])
    save(session, path, IDENTITY)
    before = path.read_bytes()
    session.prefill(LONG)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(GemmaError, match=r"cannot save the session to .*; free space") as caught:
            save(session, path, IDENTITY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_do_not_mix(tiny_model: Gemma4, path: Path) -> None:
    with replacing(path) as stream:
        with pytest.raises(GemmaError, match=r"another process is writing \.session\.gemma-mlx-new"):
            save(Session(tiny_model), path, IDENTITY)
        stream.write(b"whole")
    assert path.read_bytes() == b"whole"


def filled(model: Gemma4, tokens: int) -> Session:
    """A session of `tokens` positions whose full layers hold random rows: a prefill would take its time."""
    session = Session(model)
    session.prefill(LONG)
    contents = session.contents()
    arrays = {
        name: mx.random.normal((1, 1, tokens, array.shape[3])) if name.endswith("rows") else array
        for name, array in contents.arrays.items()
    }
    session.refill(Contents([5] * tokens, [], arrays))
    return session


def test_saving_and_resuming_copy_no_more_than_a_layer(tiny_model: Gemma4, path: Path) -> None:
    session = filled(tiny_model, 20_000)
    layer_bytes = max(array.nbytes for array in session.contents().arrays.values())
    assert layer_bytes > 2_000_000
    tracemalloc.start()
    before = settled_bytes()
    save(session, path, IDENTITY)
    copied = tracemalloc.get_traced_memory()[1]
    known_bytes = 100 * session.offset  # what stands at each position, as Python and as JSON
    assert mx.get_peak_memory() < before + layer_bytes / 4
    assert copied < known_bytes + layer_bytes / 4
    again = Session(tiny_model)
    before = settled_bytes()
    tracemalloc.reset_peak()
    mx.reset_peak_memory()
    resume(again, path, IDENTITY)
    assert tracemalloc.get_traced_memory()[1] < 2 * known_bytes + layer_bytes / 4
    assert mx.get_peak_memory() < before + again.nbytes + 1.2 * layer_bytes
    tracemalloc.stop()


_KILLED_WRITER = """
import os, resource, signal, sys
from pathlib import Path
from gemma_mlx.config import read_config
from gemma_mlx.decoding.saved_session import Identity, resume, save
from gemma_mlx.decoding.session import Session
from gemma_mlx.weights import load_model

folder, source, target = map(Path, sys.argv[1:4])
session, identity = Session(load_model(folder, read_config(folder))), Identity("a model", "a template", "float32")
resume(session, source, identity)
if sys.argv[4] == "bytes":  # the kernel kills who writes one byte more
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[5]), resource.RLIM_INFINITY))
else:
    def die(event, arguments):
        if event == sys.argv[4] and str(arguments[0]) == sys.argv[5]:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(die)
save(session, target, identity)
"""


@pytest.mark.parametrize("moment", ["nothing", "header", "rows", "all but a byte", "not renamed", "renamed"])
def test_a_writer_killed_at_any_moment_leaves_the_old_or_the_new_session(
    tiny_model: Gemma4, tiny_folder: Path, path: Path, moment: str
) -> None:
    """It is killed when so much is written; the next one is not in its way."""
    old_ids, new_ids = LONG, [*reversed(LONG), *LONG]
    source, beside = path.with_name("source"), path.with_name(".session.gemma-mlx-new")
    for ids, file in ((old_ids, path), (new_ids, source)):
        session = Session(tiny_model)
        session.prefill(ids)
        save(session, file, IDENTITY)
    old, new = path.read_bytes(), source.read_bytes()
    header_bytes = 8 + int.from_bytes(new[:8], "little")
    written = {"nothing": 0, "header": 1000, "rows": (header_bytes + len(new)) // 2, "all but a byte": len(new) - 1}
    if moment in written:
        when = ["bytes", str(written[moment])]
    else:
        when = ["os.rename", str(beside)] if moment == "not renamed" else ["open", str(path.parent)]
    command = [sys.executable, "-c", _KILLED_WRITER, *map(str, [tiny_folder, source, path]), *when]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=False)
    assert ended.returncode == -(signal.SIGXFSZ if moment in written else signal.SIGKILL), ended.stderr
    if moment == "renamed":
        assert (path.read_bytes(), beside.exists()) == (new, False)
    else:
        assert path.read_bytes() == old
        assert beside.stat().st_size == written.get(moment, len(new))
    known = new_ids if moment == "renamed" else old_ids
    session = resumed(tiny_model, path)
    hidden, reused = session.prefill([*known, *MORE])
    assert reused == len(known)
    assert close(hidden, cold(tiny_model, [*known, *MORE]))
    save(session, path, IDENTITY)
    assert resumed(tiny_model, path).offset == len(known) + len(MORE)
    assert not beside.exists()
