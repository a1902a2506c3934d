"""Progress bar with the loss."""

from __future__ import annotations

from ignite.engine import Engine
from ignite.handlers.tqdm_logger import ProgressBar
from monai.handlers import from_engine

__all__ = ["LossProgressBar"]


class LossProgressBar(ProgressBar):
    """Ignite's progress bar over the iterations of an epoch, showing the loss.

    Args:
        every: iterations between losses that are read: each makes the host wait for a GPU.
        options: of Ignite's `ProgressBar`.
    """

    def __init__(self, every: int = 1, **options) -> None:
        super().__init__(**options)
        self.every = every

    def attach(self, engine: Engine) -> None:
        shown: dict[str, float] = {}

        def newest(output) -> dict[str, float]:
            if not shown or engine.state.iteration % self.every == 0:
                loss = from_engine(["loss"], first=True)(output)  # a tuple of one where the output was not decollated
                shown["loss"] = float(loss[0] if isinstance(loss, tuple) else loss)
            return shown

        super().attach(engine, output_transform=newest)
