"""The length of a training, and the learning rate along it."""

import pytest
import torch
from ignite.engine import Engine
from scripts.learning import AverageWeights, TrainingSchedule, schedule

EPOCH = 10  # iterations


class Clock:
    """Every iteration takes a second."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(schedule.time, "monotonic", clock.monotonic)
    return clock


def training(clock, iterations, max_minutes=None, slower=1.0, stop=None):
    """An engine that notes the learning rate of each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=iterations, pct_start=0.1)
    rates = []

    def step(engine, batch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        clock.now += slower
        if engine.state.iteration == stop:
            engine.terminate()

    engine = Engine(step)
    handler = TrainingSchedule(one_cycle, iterations, max_minutes)
    handler.attach(engine)
    return engine, handler, one_cycle, rates


def test_without_a_limit_it_is_the_schedule(clock):
    engine, _, _, rates = training(clock, iterations=35)
    engine.run(range(EPOCH), max_epochs=4)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    plain = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=35, pct_start=0.1)
    wanted = []
    for _ in range(34):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plain.step()
    assert len(rates) == 40  # whole epochs
    assert rates[:34] == pytest.approx(wanted)


@pytest.mark.parametrize(("minutes", "epochs"), [(0.5, 3), (1.0, 6), (5.0, 30)])
def test_it_ends_with_its_time_and_its_schedule(clock, minutes, epochs):
    engine, _, _, rates = training(clock, iterations=100, max_minutes=minutes)
    engine.run(range(EPOCH), max_epochs=10)
    assert engine.state.epoch == epochs and clock.now <= minutes * 60
    assert max(rates) == pytest.approx(1.0, abs=0.02)
    assert rates[-1] < 0.02  # the rate reaches its end whether there are more or fewer steps than planned


def test_a_training_that_was_cut_off_goes_on_to_the_same_end(clock):
    whole, _, _, rates = training(clock, iterations=100, max_minutes=1.0)
    whole.run(range(EPOCH), max_epochs=10)

    first, handler, scheduler, before = training(clock, iterations=100, max_minutes=1.0, stop=30)
    first.run(range(EPOCH), max_epochs=10)
    # Elsewhere, on a machine that is three times slower.
    second, resumed, other, after = training(clock, iterations=100, max_minutes=1.0, slower=3.0)
    other.load_state_dict(scheduler.state_dict())
    for group, rate in zip(other.optimizer.param_groups, other.get_last_lr()):
        group["lr"] = rate
    resumed.load_state_dict(handler.state_dict())
    second.state.epoch, second.state.iteration, second.state.epoch_length = 3, 30, EPOCH
    second.run(range(EPOCH), max_epochs=second.state.max_epochs)
    assert before + after == pytest.approx(rates)


@pytest.mark.slow
def test_a_training_that_was_cut_off_before_it_was_fitted_is_fitted_elsewhere(clock):
    first, _, scheduler, _ = training(clock, iterations=100, max_minutes=1.0, stop=EPOCH)
    first.run(range(EPOCH), max_epochs=10)
    clock.now = 1000.0
    second, handler, other, rates = training(clock, iterations=100, max_minutes=1.0, slower=2.0)
    other.load_state_dict(scheduler.state_dict())
    handler.load_state_dict({"epochs": None, "fitted_after": 0})
    second.state.epoch, second.state.iteration, second.state.epoch_length = 1, EPOCH, EPOCH
    second.state.max_epochs = 10
    second.run(range(EPOCH), max_epochs=10)
    assert second.state.epoch == 4 and clock.now == 1060.0  # three epochs of 20 s
    assert rates[-1] < 0.02


def test_the_average_is_that_of_the_steps():
    network = torch.nn.Linear(2, 1)
    average = AverageWeights(network, momentum=0.25)
    values, engine = [], Engine(lambda engine, batch: None)
    average.attach(engine)
    wanted = None
    for value in (1.0, 3.0, -2.0, 5.0):
        torch.nn.init.constant_(network.weight, value)
        average(engine)
        wanted = value if wanted is None else 0.75 * wanted + 0.25 * value
        values.append(float(average.network.weight[0, 0]))
    assert values[-1] == pytest.approx(wanted)
