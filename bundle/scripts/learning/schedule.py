"""The length of a training, and the learning rate along it."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events

__all__ = ["TrainingSchedule"]


class TrainingSchedule:
    """Trainer handler: step a learning-rate scheduler every iteration, and fit the training into a time where one is given.

    With `max_minutes` the first epoch tells how long an epoch takes, its validation and checkpoint included. The number of epochs
    that the rest of the time has room for becomes that of the training, and the rest of the schedule is spread over them. Both are
    part of the state: a training that was cut off goes on to the same end.

    Args:
        lr_scheduler: any scheduler of torch, made for `iterations` steps.
        iterations: of the schedule.
        max_minutes: of the training from its first step; None for all iterations.
    """

    def __init__(self, lr_scheduler: Any, iterations: int, max_minutes: float | None = None) -> None:
        self.lr_scheduler = lr_scheduler
        self.iterations = iterations
        self.max_minutes = max_minutes
        self.epochs: int | None = None  # of a training that was fitted into a time
        self.fitted_after = 0  # epochs
        self.started: float | None = None

    def attach(self, engine: Engine) -> None:
        self.engine = engine
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        if self.max_minutes is not None:
            engine.add_event_handler(Events.EPOCH_STARTED, self.fit)

    def fit(self, engine: Engine) -> None:
        """Choose the number of epochs, once one is done."""
        if self.epochs is not None:
            return
        if self.started is None:
            self.started, self.done_before = time.monotonic(), engine.state.epoch - 1
            return
        epoch = time.monotonic() - self.started
        room = torch.tensor(1 + int((self.max_minutes * 60 - epoch) / epoch))
        room = max(2, int(idist.broadcast(room, src=0)))  # the second has begun
        self.fitted_after, self.epochs = engine.state.epoch - 1, self.done_before + room
        engine.state.max_epochs = self.epochs
        engine.logger.info(f"an epoch takes {epoch:.0f} s: {room} of them in {self.max_minutes:g} minutes")

    def place(self, iteration: int) -> float:
        """Where on the schedule an iteration is, in steps of the schedule."""
        if self.epochs is None:
            return min(iteration, self.iterations)
        first = min(self.fitted_after * self.engine.state.epoch_length, self.iterations)
        last = self.epochs * self.engine.state.epoch_length
        return min(iteration, first) + max(0, iteration - first) * (self.iterations - first) / max(1, last - first)

    def step(self, engine: Engine) -> None:
        while self.lr_scheduler.last_epoch < math.floor(self.place(engine.state.iteration) + 1e-6):
            self.lr_scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "fitted_after": self.fitted_after}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs, self.fitted_after = state["epochs"], state["fitted_after"]
        if self.epochs is not None:
            self.engine.state.max_epochs = self.epochs
