"""More networks on the same samples."""

import pytest
import torch
from scripts.errors import InputError, input_error

OWN = {"device": torch.device("cpu"), "learning_rate_drop": 1000, "features": [8, 8, 8, 8]}


@pytest.fixture
def start(train_config, tmp_path, sample_datalist):
    """Weights that a network begins with."""
    torch.manual_seed(0)
    parser = train_config(output_dir=str(tmp_path), datalist=str(sample_datalist), **OWN)
    path = tmp_path / "start.pt"
    torch.save(parser.get_parsed_content("network").state_dict(), path)
    return path


def train(train_config, folder, datalist, start, epochs=2, **networks):
    parser = train_config(
        output_dir=str(folder), datalist=str(datalist), initial_weights=str(start), networks=networks, **OWN
    )
    trainer = parser.get_parsed_content("train::trainer")
    trainer.state.max_epochs = epochs
    trainer.run()
    return torch.load(folder / "last.pt", weights_only=True)


def apart(one, other) -> float:
    return max(float((one[key].float() - other[key].float()).abs().max()) for key in one)


def test_a_twin_learns_what_the_network_learns_and_disturbs_nobody(train_config, tmp_path, sample_datalist, start):
    alone = train(train_config, tmp_path / "alone", sample_datalist, start)
    twin, fast = {"initial_weights": str(start)}, {"initial_weights": str(start), "learning_rate": 5e-3}
    state = train(train_config, tmp_path / "both", sample_datalist, start, twin=twin, fast=fast)
    average = {key.removeprefix("module."): value for key, value in state["average"].items() if key != "n_averaged"}
    assert apart(alone["network"], state["network"]) == 0.0
    assert apart(torch.load(tmp_path / "both/twin.pt", weights_only=True), average) < 1e-6
    begun = torch.load(start, weights_only=True)
    moved = [apart(torch.load(tmp_path / f"both/{name}.pt", weights_only=True), begun) for name in ("twin", "fast")]
    assert moved[1] > 2 * moved[0] > 0  # at five times the learning rate


def test_a_step_of_several_batches(train_config, tmp_path, sample_datalist, start):
    # Two batches of one sample are a step of one batch of two.
    one = train_config(
        output_dir=str(tmp_path / "one"),
        datalist=str(sample_datalist),
        initial_weights=str(start),
        batch_size=2,
        iterations=2,
        **OWN,
    )
    twin = {"twin": {"initial_weights": str(start)}}
    two = train_config(
        output_dir=str(tmp_path / "two"),
        datalist=str(sample_datalist),
        initial_weights=str(start),
        networks=twin,
        accumulation_steps=2,
        iterations_per_epoch=4,
        iterations=4,
        **OWN,
    )
    weights = []
    for parser in (one, two):
        trainer = parser.get_parsed_content("train::trainer")
        trainer.state.max_epochs = 1
        trainer.run()
        weights.append(parser.get_parsed_content("network").state_dict())
    begun = torch.load(start, weights_only=True)
    moves = [torch.cat([(state[key] - begun[key]).flatten() for key in begun]) for state in weights]
    # Adam's steps have one length, so rounding turns the sign of weights without a gradient.
    assert float(torch.nn.functional.cosine_similarity(*moves, dim=0)) > 0.98
    further = parser.get_parsed_content("train::handlers::6").networks["twin"].state_dict()
    assert apart(further, weights[1]) < 1e-6


def test_they_are_resumed_with_the_training(train_config, tmp_path, sample_datalist, start):
    twin = {"initial_weights": str(start)}
    whole = train(train_config, tmp_path / "whole", sample_datalist, start, twin=twin)
    train(train_config, tmp_path / "parts", sample_datalist, start, epochs=1, twin=twin)
    parts = train(train_config, tmp_path / "parts", sample_datalist, start, twin=twin)
    assert apart(whole["further"]["twin"]["network"], parts["further"]["twin"]["network"]) < 1e-6


def test_a_key_that_is_none_is_refused(train_config, tmp_path, sample_datalist, start):
    with pytest.raises(Exception) as caught:
        train(train_config, tmp_path / "out", sample_datalist, start, wide={"featuers": [8, 8, 8, 8]})
    cause = caught.value
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    assert "featuers" in str(cause) and "features" in str(cause)


@pytest.mark.parametrize("name", ["model", "last", "a/b", "..", ""])
def test_names_that_would_overwrite_other_files_are_refused(train_config, tmp_path, sample_datalist, start, name):
    with pytest.raises(Exception) as caught:
        train(train_config, tmp_path / "out", sample_datalist, start, **{name: {}})
    assert "cannot be the name of a further network" in str(input_error(caught.value))
    assert not list(tmp_path.glob("out/*.pt"))
