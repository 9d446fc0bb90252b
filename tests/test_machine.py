"""What a Mac gives its GPU, against published figures, and what this machine is."""

from __future__ import annotations

import mlx.core as mx
import pytest

from gemma_mlx.errors import UsageError
from gemma_mlx.machine import mac, this_machine


@pytest.mark.parametrize(
    ("memory", "mebibytes"),
    [
        ("16GB", 10922.67),
        ("32GB", 21845.34),
        ("36GB", 28_991.03 * 1e6 / 2**20),
        ("48GB", 38_654.71 * 1e6 / 2**20),
        ("64GB", 49152),
        ("96GB", 73728),
        ("18", 12288),
        ("24 gb", 16384),
    ],
)
def test_a_mac_gives_what_was_published(memory: str, mebibytes: float) -> None:
    assert mac(memory).limit_bytes / 2**20 == pytest.approx(mebibytes, abs=0.01)


@pytest.mark.parametrize("memory", ["", "0", "4GB", "16MB", "-16GB", "16.5GB", "lots", "2048GB", "16GB16GB", "٣٢GB"])
def test_what_is_no_macs_memory_is_refused(memory: str) -> None:
    with pytest.raises(UsageError, match="16GB"):
        mac(memory)


def test_this_machine_gives_less_than_it_has() -> None:
    machine = this_machine()
    assert 1 << 30 < machine.limit_bytes < machine.memory_bytes
    assert machine.is_cpu == (mx.default_device() == mx.Device(mx.cpu))
