"""Where members train."""

from __future__ import annotations

from typing import Literal

from feature_store.errors import BadInputError
from flows.training.members.base import MemberSpec

Device = Literal["cpu", "gpu"]


def check_device(device: Device) -> None:
    """
    Refuse a GPU that is not there: training on the CPU instead would take hours that nobody asked for.

    Raises:
        BadInputError: PyTorch finds no GPU.
    """
    if device == "cpu":
        return
    import torch  # noqa: PLC0415 - seconds, and only a GPU needs it here

    if not torch.cuda.is_available():
        build = "a build without CUDA" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
        raise BadInputError(
            f"A GPU was asked for, but PyTorch {torch.__version__} ({build}) finds none; look at nvidia-smi, install a "
            "CUDA build (make TORCH_INDEX_URL=https://download.pytorch.org/whl/cu128 setup), or choose QT_DEVICE=cpu"
        )


def trained_on(spec: MemberSpec, device: Device) -> Device:
    """Return where a member trains: trees and straight lines stay on the CPU, whatever is chosen."""
    return device if spec.on_gpu else "cpu"
