"""Potentials and transport of one anomaly, against the unit and against the memory traffic that they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ResizeWithPadOrCrop, generate_spatial_bounding_box
from scripts.data import write_sample_subject
from scripts.fluid import RandFluidAnomaly, random_diffusivity, random_velocity, simulate, transport
from scripts.volumes import read_volume

from .machine import DEVICE, Yardsticks, peak_megabytes, seconds

SHARED = Path(__file__).parents[2] / "shared" / "data"
PHYSICS = {"cell_size": 100.0, "velocity_scale": 500.0, "diffusivity_scale": 1.0, "taper": 20.0}
END = 0.9
DRAWS = 20


def brain(directory: Path, size: int = 160) -> MetaTensor:
    """The brain of the sample subject in a cube of 160 mm, at 160 / size mm."""
    write_sample_subject(directory)
    mask = (read_volume(directory / "label.nii.gz") > 0).float()
    cube = ResizeWithPadOrCrop((160, 160, 160))(mask)
    if size != 160:
        cube = torch.nn.functional.interpolate(cube[None].as_tensor(), (size,) * 3)[0]
    return (cube > 0.5).float().to(DEVICE)


def seeds(omega: torch.Tensor) -> dict[str, torch.Tensor]:
    """Small, median and largest traced mask, or balls of their volumes where the real data is absent."""
    paths = sorted((SHARED / "lesion_masks").glob("*.nii.gz"))
    domain = omega[0] > 0
    if paths:
        masks = {path: (read_volume(path) > 0).float() for path in paths}
        ranked = sorted(paths, key=lambda path: float(masks[path].sum()))
        chosen = {"small": ranked[0], "median": ranked[len(ranked) // 2], "largest": ranked[-1]}
        return {
            name: ResizeWithPadOrCrop((160, 160, 160))(masks[path])[0].as_tensor().to(DEVICE) * domain
            for name, path in chosen.items()
        }
    axes = torch.meshgrid(*[torch.arange(160, device=DEVICE)] * 3, indexing="ij")
    squared = sum((axis - centre) ** 2 for axis, centre in zip(axes, (50, 80, 80)))
    volumes = {"small": 5e3, "median": 6e4, "largest": 2.6e5}
    return {name: (squared < (0.75 * v / np.pi) ** (2 / 3)).float() * domain for name, v in volumes.items()}


def draw(seed: int, domain: torch.Tensor):
    state = np.random.RandomState(seed)
    velocity = random_velocity(state, domain, PHYSICS["cell_size"], PHYSICS["velocity_scale"], PHYSICS["taper"])
    return velocity, random_diffusivity(state, domain, PHYSICS["cell_size"], PHYSICS["diffusivity_scale"])


def _reached(p0, domain, velocity, diffusivity, steps: int) -> float:
    """Cells that an explicit scheme must update, summed over its steps: those with lesion, and their neighbours."""
    frames = simulate(p0, domain, velocity, diffusivity, [END * i / 6 for i in range(7)])
    near = torch.nn.functional.max_pool3d((frames > 1e-10).float()[:, None], 3, 1, 1)[:, 0] * domain
    return steps * float(near.sum(dim=(1, 2, 3)).mean())


def anomaly(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """Potentials and transport to T = 0.9, advection and diffusion, of three traced masks; and what they consist of."""
    whole = brain(directory)
    box = tuple(map(slice, *generate_spatial_bounding_box(whole)))
    domain = (whole[0] > 0)[box].contiguous()
    cells = domain.numel()
    results = [
        yardsticks.record("potentials", "160^3", seconds(lambda: draw(0, domain)), moved=17.0 * cells, omega_box=cells)
    ]
    for name, p0 in seeds(whole).items():
        p0 = p0[box].contiguous()
        totals, transports, needs, step_counts = [], [], [], []
        for seed in range(DRAWS):
            velocity, diffusivity = draw(seed, domain)
            coefficients = transport._face_coefficients(domain, velocity, diffusivity)
            steps = int(np.ceil(END * transport._outflow_rate(coefficients, diffusivity) / 0.95))
            del coefficients
            # P, V and D read and P written once a step and cell; the potentials written once.
            needs.append(24.0 * _reached(p0, domain, velocity, diffusivity, steps))
            step_counts.append(steps)
            transports.append(seconds(lambda p=p0, v=velocity, d=diffusivity: simulate(p, domain, v, d, [END]), 3))
            totals.append(seconds(lambda p=p0, s=seed: simulate(p, domain, *draw(s, domain), [END]), 3))
        more = {"steps": float(np.median(step_counts)), "seed_voxels": int((p0 > 0).sum())}
        need = float(np.median(needs))
        results.append(yardsticks.record("transport", f"160^3 {name}", float(np.median(transports)), need, **more))
        peak = peak_megabytes(lambda p=p0: simulate(p, domain, *draw(0, domain), [END]))
        results.append(
            yardsticks.record(
                "potentials + transport",
                f"160^3 {name}",
                float(np.median(totals)),
                need + 17.0 * cells,
                peak_mb=round(peak),
                peak_arrays=round(peak * 2**20 / (4 * 160**3), 1),
                **more,
            )
        )
    velocity, diffusivity = draw(0, domain)
    plain = seconds(lambda: transport.advance_everywhere(p0, domain, velocity, diffusivity, [END], 0.95), 3)
    results.append(yardsticks.record("transport, torch engine", "160^3 largest", plain))
    return results


def growth(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """Cost of `RandFluidAnomaly` against the size of the grid (the same brain in mm) and against the batch."""
    results = []
    for size in (64, 96, 128, 160, 192, 256):
        omega, mm = brain(directory, size), 160 / size
        lengths = {"cell_size": PHYSICS["cell_size"] / mm, "taper": PHYSICS["taper"] / mm}
        scales = {key: PHYSICS[key] / mm**2 for key in ("velocity_scale", "diffusivity_scale")}
        transform = RandFluidAnomaly(num_times=(10, 10), **lengths, **scales)
        spent = seconds(lambda t=transform, o=omega: [t.set_random_state(seed)(o) for seed in range(3)], 3) / 3
        results.append(
            yardsticks.record("anomaly against size", f"{size}^3", spent, us_per_voxel=spent * 1e6 / size**3)
        )
    omega = brain(directory)
    transform = RandFluidAnomaly(num_times=(10, 10), **PHYSICS)
    for batch in (1, 2, 4, 8):
        spent = seconds(lambda n=batch: [transform.set_random_state(seed)(omega) for seed in range(n)], 3)
        results.append(yardsticks.record("anomaly against batch", f"{batch} x 160^3", spent))
    return results
