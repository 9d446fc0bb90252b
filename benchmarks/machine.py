"""Which machine and which model a figure comes from."""

from __future__ import annotations

import hashlib
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from gemma_mlx import __version__
from gemma_mlx.checkpoint import read_headers


def on_cpu() -> bool:
    """Whether MLX computes on the CPU here."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def mlx_version() -> str:
    return version("mlx")


def machine_name() -> str:
    """What this machine calls itself: device, memory, system."""
    info = mx.device_info()
    system = f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else platform.system()
    memory = f"{int(info['memory_size']) / (1 << 30):.0f} GB, " if "memory_size" in info else ""
    return f"{info.get('device_name', platform.machine())}, {memory}{system}"


def where_measured() -> dict[str, str]:
    """What every report tells of where its figures come from."""
    return {
        "machine": machine_name(),
        "device": "cpu" if on_cpu() else "gpu",
        "python_version": platform.python_version(),
        "mlx_version": mlx_version(),
        "gemma_mlx_version": __version__,
    }


def adapter_facts(folder: Path | None, digest: str | None) -> dict[str, str | None]:
    """What every report tells of the adapter that was measured: its name, and what no other numbers have."""
    return {"adapter": folder.resolve().name if folder else None, "adapter_digest": digest or ""}


def fingerprint(folder: Path) -> str:
    """Changes with anything about the model in `folder` that changes what it takes: config, names, types and shapes."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for name, info in sorted(read_headers(folder).items()):
        digest.update(repr((name, info.dtype, info.shape)).encode())
    return digest.hexdigest()[:16]
