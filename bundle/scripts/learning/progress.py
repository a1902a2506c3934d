"""Progress bar with the loss."""

from __future__ import annotations

from ignite.engine import Engine
from ignite.handlers.tqdm_logger import ProgressBar
from monai.handlers import from_engine

__all__ = ["LossProgressBar"]


class LossProgressBar(ProgressBar):
    """Ignite's progress bar over the iterations of an epoch, showing the loss of the last one."""

    def attach(self, engine: Engine) -> None:
        super().attach(engine, output_transform=lambda output: {"loss": from_engine(["loss"], first=True)(output)})
