"""The average of a network's weights over the last steps."""

from __future__ import annotations

from ignite.engine import Engine, Events
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .checkpoint import plain

__all__ = ["AverageWeights"]


class AverageWeights:
    """Trainer handler: an exponential moving average of the weights, in one call for all of them.

    Args:
        network: its weights are averaged.
        momentum: of the newest weights, in (0, 1].

    Attributes:
        average: the average, an `AveragedModel`, which has a state.
        network: a network with the averaged weights.
    """

    def __init__(self, network: nn.Module, momentum: float) -> None:
        self.source = plain(network)
        self.average = AveragedModel(self.source, multi_avg_fn=get_ema_multi_avg_fn(1.0 - momentum))
        self.network = self.average.module

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        self.average.update_parameters(self.source)
