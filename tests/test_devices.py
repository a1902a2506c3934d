"""Every transform of the generator works where its input lies, and draws there what it draws on a CPU."""

import numpy as np
import pytest
import torch
from conftest import ball
from fake_device import WAITS, calls, fake_device
from scripts.fluid import random_diffusivity, random_velocity, simulate
from scripts.learning import ContrastLoss, ReconstructionLoss, UNALoss

ALL = {"ventricle_prob": 1.0, "mass_effect_prob": 1.0, "enhancement_prob": 1.0, "recontrast_prob": 1.0}
ALL |= {"one_sided_prob": 0.5, "cavity_prob": 0.5, "attention_power": 0.5, "compartments": [1, 3], "lesion_scale": 3.0}
ALL |= {"target_contrast": {"csf": 0.22, "gray_matter": 0.57, "deep_gray_matter": 0.66, "white_matter": 0.75}}


class Moved:
    """Subjects whose volumes lie on a device."""

    def __init__(self, subjects, device):
        self.subjects, self.device = subjects, device

    def __getitem__(self, number):
        subject = self.subjects[number]
        return {key: value.to(self.device) if torch.is_tensor(value) else value for key, value in subject.items()}


@pytest.mark.parametrize("level", range(3), ids=["mild", "medium", "severe"])
@pytest.mark.parametrize("shares", [{"synthetic": 1.0}, {"real": 1.0}], ids=["synthetic", "real"])
def test_samples_are_the_same_on_a_device(generator, sample_datalist, shares, level):
    weights = [float(level == other) for other in range(3)]
    more = {"datalist": str(sample_datalist), "shares": shares, "corruption_weights": weights, "seed": level}
    samples = generator(**ALL, **more).get_parsed_content("samples")
    (stream,) = (stream for stream in samples.streams if stream.subjects)
    here = [samples[number] for number in range(2)]
    stream.data = Moved(stream.data, fake_device())
    there = [samples[number] for number in range(2)]
    for one, other in zip(here, there):
        for key, value in one.items():
            if torch.is_tensor(value):
                assert other[key].device == torch.device("fake", 0), key
                torch.testing.assert_close(other[key].cpu().as_tensor(), value.as_tensor(), atol=2e-4, rtol=0, msg=key)


def test_the_fake_device_refuses_what_a_gpu_refuses():
    there = torch.ones(3, device=fake_device())
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(3)
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


def test_the_loss_does_not_wait_for_the_device():
    target = {key: torch.rand(2, 1, 8, 8, 8) for key in ("healthy", "intact", "mirrored_anomaly", "scan", "mirrored")}
    target |= {
        "anomaly": torch.rand(2, 1, 8, 8, 8),
        "attention": torch.ones(2, 1, 8, 8, 8),
        "diseased": torch.zeros(2, 1, 8, 8, 8),
    }
    target["anomaly"][1] = 0.0  # a sample without a lesion
    pred = torch.rand(2, 2, 8, 8, 8)
    loss = UNALoss(ReconstructionLoss(), ContrastLoss(), lambda_contrast=2.0)
    wanted = loss(pred, target)
    there = {key: value.to(fake_device()) for key, value in target.items()}
    pred_there = pred.to(fake_device())
    calls.clear()
    found = loss(pred_there, there)
    assert sum(calls[name] for name in WAITS) == 0
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_transport_on_a_device():
    omega = ball(24, 10.0)
    seed = torch.zeros(24, 24, 24)
    seed[6:12, 6:12, 6:12] = 1.0

    def end(device):
        state = np.random.RandomState(3)
        velocity = random_velocity(state, omega.to(device), 12.0, 30.0, 4.0)
        diffusivity = random_diffusivity(state, omega.to(device), 12.0, 2.0)
        return simulate(seed.to(device), omega.to(device), velocity, diffusivity, [0.9])

    torch.testing.assert_close(end(fake_device()).cpu(), end("cpu"), atol=1e-5, rtol=0)
