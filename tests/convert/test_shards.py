from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from convert.shards import OutputTensor, ShardWriter, plan_shards
from gemma_mlx.checkpoint import read_header

SCALES = OutputTensor("a.scales", "BF16", (3, 1))
CODES = OutputTensor("a.weight", "U32", (3, 2))
NORM = OutputTensor("norm.weight", "BF16", (5,))


def test_rows_of_several_tensors_in_turn_give_a_file_that_mlx_loads(tmp_path: Path) -> None:
    (shard,) = plan_shards([[SCALES, CODES], [NORM]], 1000)
    codes, scales = mx.arange(6, dtype=mx.uint32).reshape(3, 2), mx.array([[0.5], [-2], [7]], dtype=mx.bfloat16)
    norm = mx.arange(5).astype(mx.bfloat16)
    with ShardWriter(tmp_path, shard) as writer:
        for first, last in ((0, 2), (2, 3)):
            writer.write("a.weight", np.array(codes[first:last]))
            writer.write("a.scales", np.array(scales[first:last].view(mx.uint16)))
        writer.write("norm.weight", np.array(norm.view(mx.uint16)))
    loaded, metadata = mx.load(str(tmp_path / shard.file_name), return_metadata=True)
    assert metadata == {"format": "mlx"}
    assert all(mx.array_equal(loaded[name], array) for name, array in {"a.weight": codes, "a.scales": scales}.items())
    assert mx.array_equal(loaded["norm.weight"], norm)
    assert (tmp_path / shard.file_name).stat().st_size == shard.nbytes


def test_wide_numbers_are_aligned() -> None:
    (shard,) = plan_shards([[NORM], [CODES, SCALES]], 1000)  # in this order the codes would begin at byte 10
    assert shard.places["a.weight"][0] % 4 == 0
    assert len(shard.header) % 8 == 0


def test_module_stays_in_one_shard_and_shards_under_their_limit() -> None:
    modules = [[CODES, SCALES], [NORM], [CODES, SCALES]]  # 30, 10 and 30 bytes
    renamed = [[OutputTensor(f"{i}.{t.name}", t.dtype, t.shape) for t in m] for i, m in enumerate(modules)]
    shards = plan_shards(renamed, 40)
    assert [sorted({name.split(".")[0] for name in shard.places}) for shard in shards] == [["0", "1"], ["2"]]
    assert [shard.tensor_bytes for shard in shards] == [40, 30]
    assert [shard.file_name for shard in shards] == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]


def test_module_larger_than_the_limit_has_a_shard_of_its_own() -> None:
    assert [len(shard.places) for shard in plan_shards([[NORM], [CODES, SCALES]], 1)] == [1, 2]


def test_unfinished_tensor_is_noticed(tmp_path: Path) -> None:
    (shard,) = plan_shards([[NORM]], 1000)
    with ShardWriter(tmp_path, shard) as writer:
        writer.write("norm.weight", np.zeros(3, np.uint16))
        with pytest.raises(AssertionError, match=r"norm\.weight has fewer rows"):
            writer.require_whole(["norm.weight"])
        with pytest.raises(AssertionError, match=r"norm\.weight has more rows"):
            writer.write("norm.weight", np.zeros(3, np.uint16))


def test_a_file_that_was_begun_keeps_what_is_not_written_again(tmp_path: Path) -> None:
    (shard,) = plan_shards([[CODES, SCALES], [NORM]], 1000)
    with ShardWriter(tmp_path, shard) as writer:
        writer.write("a.weight", np.arange(6, dtype=np.uint32))
        writer.write("norm.weight", np.arange(3, dtype=np.uint16))
    with ShardWriter(tmp_path, shard) as writer:
        writer.write("norm.weight", np.arange(5, dtype=np.uint16))
        writer.write("a.scales", np.arange(3, dtype=np.uint16))
    loaded = mx.load(str(tmp_path / shard.file_name))
    assert isinstance(loaded, dict)
    assert loaded["a.weight"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert loaded["norm.weight"].view(mx.uint16).tolist() == [0, 1, 2, 3, 4]


def test_header_is_one_that_our_reader_trusts(tmp_path: Path) -> None:
    (shard,) = plan_shards([[CODES]], 1000)
    with ShardWriter(tmp_path, shard) as writer:
        writer.write("a.weight", np.zeros((3, 2), np.uint32))
    (info,) = read_header(tmp_path / shard.file_name)
    assert (info.name, info.dtype, info.shape) == ("a.weight", "U32", (3, 2))
