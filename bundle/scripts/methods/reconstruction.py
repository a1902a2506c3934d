"""Methods that predict the healthy scan, and methods whose network gives the score itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import Compose
from monai.utils import convert_to_tensor

from ..slices import AxialSlices, WholeVolume
from .method import Method

__all__ = ["Reconstruction", "ScoreMap"]


class _Networked(Method):
    """What both have in common: a network that sees a case, whole or in slices.

    Args:
        network: ``(B, C, ...)`` to ``(B, outputs, ...)``; of several results the first counts.
        input_keys: items of the case that become the channels of its input.
        slicer: how a volume becomes the pieces that the network takes; None for the whole volume.
        inferer: how the network is run.
        batch_size: pieces at once.
        sees, priors: see `Method`.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        input_keys: Sequence[str] = ("scan",),
        slicer: AxialSlices | WholeVolume | None = None,
        inferer: Inferer | None = None,
        batch_size: int = 16,
        sees: Sequence[str] = (),
        priors: Sequence[str] = (),
    ) -> None:
        super().__init__(sees, priors)
        self.network = network
        self.input_keys = tuple(input_keys)
        self.slicer = WholeVolume() if slicer is None else slicer
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.batch_size = batch_size

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """That of the network: a file of weights serves the network alone as well."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, state: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        return self.network.load_state_dict(state, *args, **kwargs)

    def predict(self, case: Mapping[Hashable, Any], network: Callable | None = None) -> torch.Tensor:
        """What the network, or a function of it, says of a case, ``(outputs, X, Y, Z)`` on the CPU."""
        self.network.eval()
        network = self.network if network is None else network
        device = next(self.network.parameters()).device
        scan = torch.cat([convert_to_tensor(case[key], track_meta=False) for key in self.input_keys]).float()
        pieces, index = self.slicer.cut(scan, case["brain"])
        found = []
        for batch in pieces.split(self.batch_size):
            result = self.inferer(batch.to(device), network)
            found.append(
                convert_to_tensor(result[0] if isinstance(result, (tuple, list)) else result, track_meta=False).cpu()
            )
        return self.slicer.stack(torch.cat(found).float(), index, scan.shape[1:])


class Reconstruction(_Networked):
    """The network predicts the healthy scan; the score is how far the scan is from it.

    Args:
        residual: transform, or list of transforms, that adds ``score`` to a case with the predictions, such as
            `scripts.residual.Residuald`.
        outputs: name of each channel of the prediction.
        networked: arguments of the network's side: ``network``, ``input_keys``, ``slicer``, ``inferer``, ``batch_size``, ``sees``,
            ``priors``.
    """

    def __init__(
        self, residual: Callable | Sequence[Callable], outputs: Sequence[str] = ("pred_healthy",), **networked
    ) -> None:
        super().__init__(**networked)
        self.residual = Compose(residual)
        self.outputs = tuple(outputs)

    def named(self, case: Mapping[Hashable, Any]) -> dict[str, MetaTensor]:
        """The predictions for a case by their names."""
        meta = dict(case["scan"].meta)
        predictions = zip(self.outputs, self.predict(case), strict=True)
        return {name: MetaTensor(values[None], meta=meta) for name, values in predictions}

    def maps(self, case: Mapping[Hashable, Any]) -> dict[str, MetaTensor]:
        named = self.named(case)
        scored = self.residual({**case, **named})
        return {key: value for key, value in scored.items() if key not in case}

    def picture(self, case: Mapping[Hashable, Any]) -> MetaTensor:
        """The healthy scan, without the work of scoring it."""
        if "pred_healthy" not in self.outputs:
            return super().picture(case)
        with torch.no_grad():
            drawn = self.predict(case)[self.outputs.index("pred_healthy")][None]
        return MetaTensor(drawn, meta=dict(case["scan"].meta))


class ScoreMap(_Networked):
    """The network, or its inferer, gives the score itself: a segmenter, a student that disagrees with its teacher, a gradient."""

    def maps(self, case: Mapping[Hashable, Any]) -> dict[str, MetaTensor]:
        return {"score": MetaTensor(self.predict(case)[:1].abs(), meta=dict(case["scan"].meta))}
