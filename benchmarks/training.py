"""A whole training sample, and its share in a training step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from ignite.engine import Events
from monai.utils import set_determinism
from scripts.config import parse

from .machine import DEVICE, Yardsticks, now, seconds, timed

PAPER_ITERATIONS, PAPER_DAYS = 400_000, 14  # on one A100


def sample(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """Deformation, anomaly, modality, encoding, corruption and pair of one synthetic sample at 1 mm and 160^3."""
    set_determinism(0)
    sizes = {"dataset_dir": str(directory / "sample_subject"), "voxel_size": 1.0, "patch_size": [160, 160, 160]}
    stream = parse(["generator.yaml"], sizes).get_parsed_content("synthetic")
    subject = stream.data[0]
    parts: dict[str, float] = {}
    draws = 9

    def draw() -> Mapping:
        data = dict(subject)
        for transform in steps:
            data = transform(data)
        return data

    steps = stream.transform.transforms
    draw()
    whole = seconds(draw, draws)
    steps = [timed(t, parts, type(t).__name__) for t in steps]
    for _ in range(draws):
        draw()
    shares = {name: round(spent / draws, 4) for name, spent in sorted(parts.items(), key=lambda item: -item[1])}
    return [yardsticks.record("training sample", "160^3, 1 mm", whole, parts_s=shares)]


def step(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """A training step, and the share of the generator in it: of the default config, and of the paper's on a GPU."""
    scales = {"default": ["train.yaml"]}
    if DEVICE.type != "cpu":
        scales["paper"] = ["train.yaml", "sizes/paper.yaml"]
    results = []
    for scale, files in scales.items():
        set_determinism(0)
        settings = {"output_dir": str(directory), "num_workers": 0, "resume": False}
        parser = parse(files, {**settings, "iterations": 16, "iterations_per_epoch": 16, "train::handlers": []})
        trainer = parser.get_parsed_content("train::trainer")
        moments = {Events.GET_BATCH_STARTED: [], Events.GET_BATCH_COMPLETED: [], Events.ITERATION_COMPLETED: []}
        for event, times in moments.items():
            trainer.add_event_handler(event, lambda engine, times=times: times.append(now()))
        trainer.run()
        asked, got, done = (torch.tensor(times[4:16], dtype=torch.float64) for times in moments.values())
        generate, learn = float((got - asked).median()), float((done - got).median())
        size, batch = (parser.get_parsed_content(key) for key in ("patch_size", "batch_size"))
        more = {
            "generator_s": round(generate, 4),
            "generator_share": round(generate / (generate + learn), 3),
            "samples_per_s": round(batch / (generate + learn), 3),
            "days_of_400k_iterations": round(PAPER_ITERATIONS * (generate + learn) / 86400, 1),
            "days_of_the_paper": PAPER_DAYS,
        }
        name = f"training step, {scale} config"
        results.append(yardsticks.record(name, f"{batch} x {'x'.join(map(str, size))}", generate + learn, **more))
    return results
