"""What a GPU does in training and inference, each row beside its limit by bytes or by operations; correctness first.

``PYTHONPATH=bundle python -m benchmarks gpu`` is made to take under four minutes on a GPU. It needs neither itk nor data.
Without a GPU it runs the same code on small volumes, which shows that it works and says nothing of speed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from scripts.config import parse
from scripts.fluid import random_diffusivity, random_velocity, simulate, transport
from torch.utils.flop_counter import FlopCounterMode

from .machine import DEVICE, Yardsticks, seconds

GPU = DEVICE.type == "cuda"
SIZE = 160 if GPU else 48  # voxels of 1 mm for the fields
END = 0.9


def _radius(size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Distance from the middle of a cube, 1 on an ellipsoid that fills it as a brain does."""
    axes = [torch.linspace(-1, 1, size, device=device)] * 3
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    return ((x / 0.85) ** 2 + y**2 + (z / 0.8) ** 2).sqrt()


def _omega(size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    return _radius(size, device) < 1


def _fields(omega: torch.Tensor):
    state = np.random.RandomState(0)
    mm = 160 / len(omega)
    velocity = random_velocity(state, omega, 100.0 / mm, 500.0 / mm**2, 20.0 / mm)
    return velocity, random_diffusivity(state, omega, 100.0 / mm, 1.0 / mm**2)


def _seed(omega: torch.Tensor) -> torch.Tensor:
    n = len(omega)
    seed = torch.zeros(omega.shape, device=omega.device)
    seed[n // 4 : n // 2, n // 3 : 2 * n // 3, n // 3 : 2 * n // 3] = 1.0
    return seed * omega


def _correct() -> dict[str, float]:
    """Largest differences from a CPU in float64, and the mass that is left."""
    here, there = _omega(SIZE, DEVICE), _omega(SIZE)
    velocity, diffusivity = _fields(here)
    known_velocity, known_diffusivity = _fields(there)
    fields = max(float((one.cpu() - other).abs().max()) for one, other in zip(velocity, known_velocity))
    end = simulate(_seed(here), here, velocity, diffusivity, [END])[0].cpu()
    doubled = [component.double() for component in known_velocity]
    wanted = simulate(_seed(there).double(), there, doubled, known_diffusivity.double(), [END])[0]
    return {
        "fields": fields,
        "P": float((end - wanted).abs().max()),
        "mass": float(end.double().sum() / _seed(there).double().sum()),
    }


def fluid(yardsticks: Yardsticks) -> list[dict]:
    """Potentials, and the transport of a large seed to T = 0.9, in one kernel a step and in eager torch."""
    omega, size = _omega(SIZE, DEVICE), f"{SIZE}^3"
    velocity, diffusivity = _fields(omega)
    seed = _seed(omega)
    coefficients = transport._face_coefficients(omega, velocity, diffusivity)
    steps = int(np.ceil(END * transport._outflow_rate(coefficients, diffusivity) / 0.95))
    del coefficients
    need = 32.0 * seed.numel() * steps  # P and six coefficients read, P written
    found = [
        yardsticks.record("potentials", size, seconds(lambda: _fields(omega)), moved=17.0 * seed.numel(), **_correct())
    ]
    for name, work in {
        "transport": lambda: simulate(seed, omega, velocity, diffusivity, [END]),
        "transport, eager torch": lambda: _eager(seed, omega, velocity, diffusivity),
    }.items():
        found.append(yardsticks.record(name, size, seconds(work), moved=need, steps=steps))
    return found


def _eager(seed, omega, velocity, diffusivity) -> torch.Tensor:
    stepper, transport._stepper = transport._stepper, lambda p: transport._advance
    try:
        return transport.advance_everywhere(seed, omega, velocity, diffusivity, [END], 0.95)
    finally:
        transport._stepper = stepper


def _subject(size: int, voxel_size: float) -> dict:
    """A person of nested ellipsoids, prepared: label map and T1w."""
    label, radius = torch.zeros((1, size, size, size), dtype=torch.int64), _radius(size)[None]
    half = (torch.arange(size) < size // 2)[:, None, None]
    for share, left, right in ((0.9, 24, 24), (0.84, 3, 42), (0.7, 2, 41), (0.2, 4, 43)):
        label = torch.where(radius < share, torch.where(half, left, right), label)
    values = torch.zeros(256)
    values[[24, 4, 43]], values[[3, 42]], values[[2, 41]] = 0.22, 0.57, 0.75
    affine = torch.diag(torch.tensor([voxel_size] * 3 + [1.0]).double())
    affine[:3, 3] = -voxel_size * (size - 1) / 2
    subject = {"label": label, "t1": values[label]}
    return {"subject": "ellipsoids"} | {
        key: MetaTensor(volume, affine=affine).to(DEVICE) for key, volume in subject.items()
    }


def samples(yardsticks: Yardsticks) -> list[dict]:
    """Whole samples of the generator, made on the device by one process."""
    from scripts.data import PackedSubjects

    results = []
    for voxel_size, edge in ((2.0, 96 if GPU else 48), (1.0, SIZE)):
        own = {
            "voxel_size": voxel_size,
            "patch_size": [edge] * 3,
            "subjects": PackedSubjects([_subject(edge, voxel_size)]),
        }
        drawn = parse(["generator.yaml"], own).get_parsed_content("samples")
        numbers = iter(range(10_000))
        spent = seconds(lambda d=drawn, n=numbers: [d[next(n)] for _ in range(4)]) / 4
        volumes = 9  # that a sample has; each is written at least once
        results.append(
            yardsticks.record(
                "sample on the device",
                f"{edge}^3, {voxel_size:g} mm",
                spent,
                moved=4.0 * volumes * edge**3,
                samples_per_s=round(1 / spent, 1),
            )
        )
    return results


def learning(yardsticks: Yardsticks) -> list[dict]:
    """A step of the shipped network and of the paper's: forward, loss, backward, optimizer, average."""
    scales = {
        "shipped": (["train.yaml", "sizes/released.yaml"], 8 if GPU else 1, [64, 80, 64] if GPU else [32, 48, 32])
    }
    if GPU:
        scales["paper"] = (["train.yaml", "sizes/paper.yaml"], 4, [160, 160, 160])
    results = []
    for name, (files, batch, size) in scales.items():
        for compiled in (False, True) if GPU else (False,):
            parser = parse(files, {"output_dir": "unused", "batch_size": batch, "patch_size": size, "num_workers": 0})
            network, loss, optimizer = (parser.get_parsed_content(key) for key in ("network", "loss", "optimizer"))
            average, inferer = (parser.get_parsed_content(key) for key in ("average", "inferer"))
            if compiled:
                network.compile()
            keys = ("healthy", "intact", "anomaly", "attention", "mirrored_anomaly", "scan", "mirrored", "brain")
            target = {key: torch.rand(batch, 1, *size, device=DEVICE) for key in keys}
            target["diseased"] = torch.zeros(batch, device=DEVICE)
            inputs = torch.cat([target["scan"], target["mirrored"]], dim=1)

            def step(n=network, c=loss, o=optimizer, a=average, i=inferer, x=inputs, y=target):
                o.zero_grad(set_to_none=True)
                c(i(x, n), y).backward()
                o.step()
                a(None)

            with FlopCounterMode(display=False) as counter:
                inferer(inputs, network).sum().backward()
            spent = seconds(step)
            more = {"samples_per_s": round(batch / spent, 1)}
            if name == "paper":
                more["hours_of_400k_steps"] = round(400_000 * spent / 3600, 1)
            label = f"step, {name} network{', compiled' if compiled else ''}"
            operations = counter.get_total_flops()
            results.append(yardsticks.record(label, f"{batch} x {size}", spent, operations=operations, **more))
    return results


def forward(yardsticks: Yardsticks) -> list[dict]:
    """The shipped network on a whole brain at 2 mm."""
    size = [96, 112, 96] if GPU else [48, 64, 48]
    network = parse(["train.yaml"], {"output_dir": "unused"}).get_parsed_content("network").eval()
    inputs = torch.rand(1, 2, *size, device=DEVICE)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            network(inputs)
        spent = seconds(lambda: network(inputs))
    return [yardsticks.record("forward of a scan", str(size), spent, operations=counter.get_total_flops())]


def gpu(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """All of it."""
    if not GPU:
        print("no GPU: small volumes on the CPU, which show that the benchmark runs", flush=True)
    return [row for part in (fluid, samples, learning, forward) for row in part(yardsticks)]
