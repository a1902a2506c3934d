"""Progress bars of training and of a pass over cases."""

from __future__ import annotations

from ignite.engine import Engine
from ignite.handlers.tqdm_logger import ProgressBar
from monai.handlers import from_engine

__all__ = ["CaseProgressBar", "LossProgressBar"]


class CaseProgressBar(ProgressBar):
    """Ignite's progress bar without metrics."""


class LossProgressBar(ProgressBar):
    """Ignite's progress bar over the iterations of an epoch, showing the loss of the last one."""

    def attach(self, engine: Engine) -> None:
        super().attach(engine, output_transform=lambda output: {"loss": from_engine(["loss"], first=True)(output)})
