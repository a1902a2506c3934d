"""The stages of disentangled anatomy: the tissues, the representation, and then, with both as they are, the restorer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.losses import DiceCELoss
from monai.utils import convert_to_tensor
from torch import nn
from torch.nn.functional import l1_loss

from ..networks import DisentangledAnatomy, straight_through

__all__ = ["PrepareContrasts", "PrepareEdges", "PreparePair", "Representation", "RepresentationLoss"]

Found = Mapping[str, torch.Tensor]


class PreparePair:
    """``prepare_batch`` of the engines: the scans of a person as channels of the input, and the tissues as the target.

    The channels are the scan with a fluid anomaly; the *intact* scan without it; its *partner*, the same anatomy in another
    contrast; and *shown*, 0 where edges are hidden in training, else 1.
    """

    keys = ("scan", "intact", "partner", "shown")

    def __call__(
        self, batch: Mapping[str, torch.Tensor], device: torch.device | str | None = None, non_blocking=False, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        on = lambda key: convert_to_tensor(batch[key], track_meta=False).to(device, non_blocking=non_blocking)  # noqa: E731
        return torch.cat([on(key) for key in self.keys], dim=1), on("tissues").long()


class PrepareContrasts(PreparePair):
    """``prepare_batch`` of stage 0: both contrasts as scans of their own, and the tissues of each, all ``(2 B, 1, X, Y, Z)``."""

    def __call__(self, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        pair, tissues = super().__call__(*args, **kwargs)
        return torch.cat([pair[:, 1:2], pair[:, 2:3]]), torch.cat([tissues, tissues])


class Representation(nn.Module):
    """Stage 1: both contrasts of a person through all but the restorer, and every modality vector drawn with every anatomy.

    Args:
        network: its restorer stays out of it.
        momentum: of the newest vectors in the mean vector.
    """

    def __init__(self, network: DisentangledAnatomy, momentum: float = 0.02) -> None:
        super().__init__()
        self.network = network
        self.momentum = momentum

    def forward(self, pair: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            pair: ``(B, 4, X, Y, Z)``, see `PreparePair`.

        Returns:
            ``logits`` ``(B, 2, tissues, X, Y, Z)`` of intact scan and partner; ``vectors`` ``(B, 2, size)`` of both;
            ``drawn`` ``(B, 2, 2, X, Y, Z)`` by anatomy and vector; ``redrawn`` ``(B, 2, 2, size)``, their vectors; ``truth``
            ``(B, 2, X, Y, Z)``.
        """
        net, truth = self.network, pair[:, 1:3]
        logits = [net.extractor(truth[:, n : n + 1]) for n in range(2)]
        hard, soft = zip(*(straight_through(each) for each in logits))
        vectors = [net.modality(truth[:, n : n + 1], soft[n]) for n in range(2)]
        shares = [net.combiner.shares(net.encoder(each)) for each in hard]
        drawn = [[net.combiner.shade(each, v) for v in vectors] for each in shares]
        redrawn = [[net.modality(scan, soft[n]) for scan in row] for n, row in enumerate(drawn)]
        if self.training:
            seen = torch.cat(vectors).detach().float().mean(dim=0)
            net.usual_vector.lerp_(seen, self.momentum)
        return {
            "logits": torch.stack(logits, dim=1),
            "vectors": torch.stack(vectors, dim=1),
            "drawn": torch.stack([torch.cat(row, dim=1) for row in drawn], dim=1),
            "redrawn": torch.stack([torch.stack(row, dim=1) for row in redrawn], dim=1),
            "truth": truth,
        }


class RepresentationLoss(nn.Module):
    """Stage 1: every scan must come back from either anatomy, and the anatomies must be one.

    ``rebuild L_rec + agree L_con + prior L_prior + cycle L_cyc`` with

    - L_rec: L1 of each contrast, drawn from its own anatomy and from its partner's, which forces contrast out of the anatomy;
    - L_con: L1 of the tissue probabilities of both contrasts;
    - L_prior: Dice loss and cross-entropy of each with the tissues, since CSF is rare;
    - L_cyc: L1 of the vector of what was drawn, and the vector it was drawn with.

    The paper's similarity of vectors, L_sim, has nothing to teach here: our vector is measured.

    Args:
        rebuild, agree, prior, cycle: weights. All are ours: the paper names the constraints, not their form.
    """

    def __init__(self, rebuild: float = 10.0, agree: float = 1.0, prior: float = 1.0, cycle: float = 0.1) -> None:
        super().__init__()
        self.unlike_prior = DiceCELoss(softmax=True, to_onehot_y=True)
        self.weights = {"rebuild": rebuild, "agree": agree, "prior": prior, "cycle": cycle}

    def terms(self, found: Found, tissues: torch.Tensor) -> dict[str, torch.Tensor]:
        """By name, each term without its weight.

        Args:
            found: what `Representation` returns.
            tissues: ``(B, 1, X, Y, Z)`` int64, 0 to 3.
        """
        found = {key: value.float() for key, value in found.items()}
        logits, vectors = found["logits"], found["vectors"]
        one, other = (straight_through(logits[:, n])[1] for n in range(2))
        return {
            "rebuild": l1_loss(found["drawn"], found["truth"][:, None].expand_as(found["drawn"])),
            "agree": l1_loss(one, other),
            "prior": sum(self.unlike_prior(logits[:, n], tissues) for n in range(2)) / 2,
            "cycle": l1_loss(found["redrawn"], vectors[:, None].expand_as(found["redrawn"])),
        }

    def forward(self, found: Found, tissues: torch.Tensor) -> torch.Tensor:
        return sum(self.weights[name] * value for name, value in self.terms(found, tissues).items())


class PrepareEdges(PreparePair):
    """``prepare_batch`` of stage 2: the edges of a scan with a lesion as the input, the tissues without the lesion as the target.

    Both are those that the extractor sees, so that a restorer that is right changes nothing in a healthy scan.

    Args:
        network: with a trained extractor, which stays as it is.
    """

    def __init__(self, network: DisentangledAnatomy) -> None:
        self.network = network

    @torch.no_grad()
    def __call__(self, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        pair, _ = super().__call__(*args, **kwargs)
        scan, intact, shown = pair[:, :1], pair[:, 1:2], pair[:, 3:]
        self.network.extractor.eval()  # An earlier stage has left it in training mode.
        edges = self.network.edges(self.network.anatomy(scan)[0]) * shown
        return edges, self.network.anatomy(intact)[0].argmax(dim=1, keepdim=True)
