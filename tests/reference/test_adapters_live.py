"""Adapters that mlx-lm and PEFT train live on the miniature: loaded and fused, they give the trainers' own logits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

import mlx_lm  # noqa: E402
from transformers import Gemma4UnifiedForConditionalGeneration  # noqa: E402

from gemma_mlx.config import read_config  # noqa: E402
from gemma_mlx.home import miniature_folder  # noqa: E402
from gemma_mlx.model.gemma4 import Gemma4  # noqa: E402
from gemma_mlx.weights import load_model  # noqa: E402
from tests.adapters.trained import fused, loaded  # noqa: E402
from tests.golden.make_adapters import text_twin  # noqa: E402

pytestmark = pytest.mark.reference

TOLERANCE = 1e-3
IDS = [2, *range(30, 330)]
"""Longer than the window."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def logits(model: Gemma4) -> NDArray[Any]:
    return np.array(model.logits(model(model.embed(IDS, []), model.make_caches()))[0])


def without_adapter(folder: Path) -> NDArray[Any]:
    return logits(load_model(folder, read_config(folder), mx.float32))


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature as mlx-lm reads it."""
    vocab_size = read_config(miniature_folder()).text.vocab_size
    return text_twin(tmp_path_factory.mktemp("mlx-lm") / "twin", vocab_size, miniature_folder())


@pytest.fixture(scope="module")
def packed_twin(twin: Path) -> Path:
    """The same at 4 bit, as mlx-lm packs it: it leaves the eyes and ears out."""
    packed = twin.parent / "packed"
    mlx_lm.convert(str(twin), str(packed), quantize=True, q_bits=4, q_group_size=64)
    return packed


def train_with_mlx_lm(twin: Path, kind: str, folder: Path) -> Path:
    """Runs `mlx_lm lora` for ten steps."""
    sums = [{"prompt": f"What is {a} + {b}?", "completion": "I do not say."} for a in range(4) for b in range(4)]
    data = folder / "data"
    data.mkdir(parents=True)
    for name in ("train", "valid"):
        (data / f"{name}.jsonl").write_text("\n".join(json.dumps(line) for line in sums))
    options = {"model": twin, "data": data, "fine-tune-type": kind, "adapter-path": folder / "adapter", "iters": 10}
    options |= {"num-layers": -1, "batch-size": 2, "learning-rate": 1e-3, "val-batches": 1}
    command = [sys.executable, "-m", "mlx_lm", "lora", "--train"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder / "adapter"


def mlx_lm_logits(twin: Path, adapter: Path) -> NDArray[Any]:
    model, *_ = mlx_lm.load(str(twin), adapter_path=str(adapter))
    model.set_dtype(mx.float32)
    return np.array(model(mx.array([IDS]))[0])


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_of_mlx_lm_gives_its_logits_loaded_and_fused(kind: str, twin: Path, tmp_path: Path) -> None:
    adapter = train_with_mlx_lm(twin, kind, tmp_path / kind)
    wanted = mlx_lm_logits(twin, adapter)
    assert np.abs(logits(loaded(miniature_folder(), adapter)) - wanted).max() < TOLERANCE
    assert np.abs(logits(fused(miniature_folder(), adapter, tmp_path / "fused")) - wanted).max() < TOLERANCE
    assert np.abs(without_adapter(miniature_folder()) - wanted).max() > 1


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_trained_on_packed_layers_gives_its_logits_over_them(
    kind: str, packed_twin: Path, tmp_path: Path
) -> None:
    adapter = train_with_mlx_lm(packed_twin, kind, tmp_path / kind)
    packed = with_eyes_and_ears(packed_twin, tmp_path / "packed")
    wanted = mlx_lm_logits(packed_twin, adapter)
    assert np.abs(logits(loaded(packed, adapter)) - wanted).max() < TOLERANCE
    assert np.abs(without_adapter(packed) - wanted).max() > 1


def with_eyes_and_ears(packed: Path, folder: Path) -> Path:
    """What mlx-lm packed, with the miniature's tensors that it had left out, in the new `folder`."""
    folder.mkdir()
    found, stored = (mx.load(str(source / "model.safetensors")) for source in (packed, miniature_folder()))
    assert isinstance(found, dict)
    assert isinstance(stored, dict)
    media = {name: array for name, array in stored.items() if "language_model" not in name}
    mx.save_safetensors(str(folder / "model.safetensors"), found | media)
    quantization = json.loads((packed / "config.json").read_text())["quantization"]
    config = json.loads((miniature_folder() / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization": quantization}))
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"]},
        {"target_modules": "all-linear", "use_rslora": True},
        {"target_modules": "all-linear", "use_dora": True},
        {
            "target_modules": r".*\.(q_proj|o_proj|down_proj)",
            "rank_pattern": {r"layers\.5\.self_attn\.q_proj": 2},
            "alpha_pattern": {"o_proj": 3},
            "modules_to_save": ["input_layernorm"],
        },
    ],
    ids=["lora", "rslora", "dora", "patterns"],
)
def test_an_adapter_of_peft_gives_its_logits_loaded_and_fused(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Gemma4UnifiedForConditionalGeneration.from_pretrained(miniature_folder(), dtype=torch.float32)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, **options))
    optimizer = torch.optim.Adam([weight for weight in adapted.parameters() if weight.requires_grad], 1e-2)
    ids = torch.tensor([IDS])
    for _ in range(3):
        adapted(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        wanted = adapted.eval()(input_ids=ids).logits[0].numpy()
    assert np.abs(logits(loaded(miniature_folder(), tmp_path / "adapter")) - wanted).max() < TOLERANCE
    found = logits(fused(miniature_folder(), tmp_path / "adapter", tmp_path / "fused"))
    assert np.abs(found - wanted).max() < TOLERANCE
    assert np.abs(without_adapter(miniature_folder()) - wanted).max() > 1
