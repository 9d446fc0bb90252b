"""`load(adapter=...)`: the answers, the plan, drafting, saved sessions, and mlx-lm where it is missing."""

from __future__ import annotations

import builtins
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from gemma_mlx import Gemma, load
from gemma_mlx.decoding.depth import FixedDepth
from gemma_mlx.errors import GemmaError, GemmaWarning, UsageError
from gemma_mlx.home import miniature_folder
from tests.adapters.miniature import write_adapter
from tests.allocations import exact_buffers, settled_bytes

QUESTION = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter") / "mine")


@pytest.fixture(scope="module")
def adapted(folder: Path) -> Gemma:
    """The miniature with the adapter."""
    return load(miniature_folder(), adapter=folder)


def greedy(gemma: Gemma, draft: Any = "off") -> Any:
    return gemma.reply(QUESTION, sampling=gemma.sampling(temperature=0), max_tokens=24, draft=draft)


def test_it_answers_otherwise_and_drafts_change_nothing(
    miniature: Gemma, adapted: Gemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapted, "depth_rule", FixedDepth(2))
    plain, drafted = greedy(adapted), greedy(adapted, "mtp")
    assert plain.tokens != greedy(miniature).tokens
    assert drafted.tokens == plain.tokens
    assert drafted.drafted_tokens > 0


def test_a_session_is_of_one_adapter(tmp_path: Path, folder: Path, miniature: Gemma, adapted: Gemma) -> None:
    other = load(miniature_folder(), draft="off", adapter=write_adapter(tmp_path / "other", seed=1))
    path = tmp_path / "session"
    for gemma, others in ((adapted, [miniature, other]), (miniature, [adapted])):
        session = gemma.session()
        gemma.reply(QUESTION, session=session, max_tokens=4)
        gemma.save_session(session, path)
        assert gemma.resume_session(path).offset > 0
        for stranger in others:
            with pytest.warns(GemmaWarning, match="another adapter, or without one"):
                assert stranger.resume_session(path).offset == 0
    again = load(miniature_folder(), draft="off", adapter=folder)
    adapted_session = adapted.session()
    adapted.reply(QUESTION, session=adapted_session, max_tokens=4)
    adapted.save_session(adapted_session, path)
    assert again.resume_session(path).offset > 0


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_the_plan_covers_the_adapter(folder: Path, dtype: mx.Dtype) -> None:
    before_bytes = settled_bytes()
    with exact_buffers():
        gemma = load(miniature_folder(), context_tokens=600, draft="off", dtype=dtype, adapter=folder)
    plan = gemma.plan
    gc.collect()
    mx.clear_cache()
    loaded_bytes = mx.get_active_memory() - before_bytes
    assert plan.adapter_bytes > 0
    assert plan.weights_bytes + plan.adapter_bytes == pytest.approx(loaded_bytes, rel=0.002)
    mx.reset_peak_memory()
    gemma.session().prefill([7] * 590)
    assert mx.get_peak_memory() - before_bytes <= plan.total_bytes
    without = load(miniature_folder(), context_tokens=600, draft="off", dtype=dtype).plan
    assert plan.total_bytes >= without.total_bytes + plan.adapter_bytes


def test_no_adapter_folder_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no adapter folder"):
        load(miniature_folder(), adapter=tmp_path / "none")


def test_without_mlx_lm_one_line_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imports = builtins.__import__

    def refused(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "mlx_lm":
            raise ModuleNotFoundError("No module named 'mlx_lm'")
        return imports(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refused)
    monkeypatch.setattr("gemma_mlx.loader.load_model", lambda *_: pytest.fail("weights were read before"))
    with pytest.raises(GemmaError, match="python3 -m pip install mlx-lm") as caught:
        load(miniature_folder(), adapter=folder)
    assert "\n" not in str(caught.value)


def test_mlx_lm_is_imported_only_for_an_adapter(folder: Path) -> None:
    program = (
        "import sys; from gemma_mlx import load; from gemma_mlx.home import miniature_folder as model\n"
        "load(model(), draft='off'); assert not {'mlx_lm', 'transformers'} & sys.modules.keys()\n"
        f"load(model(), draft='off', adapter={str(folder)!r}); assert 'mlx_lm' in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
