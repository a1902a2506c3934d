"""An evaluator handler that looks at one prepared case after the other, and writes at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from ignite.engine import Engine, Events
from monai.utils import convert_to_tensor

from ..similarity import to_scale_of

__all__ = ["CaseHandler", "sharp_scan"]


def sharp_scan(case: Mapping[str, Any]) -> torch.Tensor:
    """The scan as it was read, on the scale of the prepared one, for pictures: what was prepared has 2 mm.

    Args:
        case: with ``original``, and on its grid ``scan`` and ``brain``.
    """
    scan, prepared, brain = (
        convert_to_tensor(case[key], track_meta=False).cpu() for key in ("original", "scan", "brain")
    )
    return to_scale_of(scan.clamp(min=0.0), prepared, brain > 0.5)


class CaseHandler:
    """Attach it to an evaluator; a subclass has `note`, called with each case, and `write`, called with the engine at the end.

    The data loader of the evaluator is a `scripts.data.Survey`.

    Attributes:
        needed: an item of every case that could be used. The data loader names those that lack it, and they are passed over.
        noted: number of cases that were taken; without any, nothing is written.
    """

    needed: ClassVar[str] = "lesion"
    noted = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _look(self, engine: Engine) -> None:
        case = {**engine.state.batch, **engine.state.output}
        if self.needed not in case:
            return
        try:
            self.note(case)
            self.noted += 1
        except Exception as error:
            # What is known of one scan must not stop the others; `Survey.finish` says what it was.
            engine.state.dataloader.note(error)

    def _write(self, engine: Engine) -> None:
        if self.noted:
            self.write(engine)

    def note(self, case: dict[str, Any]) -> None:
        """Take what is wanted of a case."""
        raise NotImplementedError

    def write(self, engine: Engine) -> None:
        """Write what was noted."""
        raise NotImplementedError
