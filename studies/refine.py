"""Teach the refiner of the healthy T1w: ``PYTHONPATH=bundle python -m studies.refine runs/weights runs/bank/contrast_bank.pt``.

The first folder is that of `studies.training_data`. Samples are those of ``sizes/released.yaml``: T1w of healthy people in the
contrasts of the bank, and real pairs, each with fluid anomalies. The shipped weights draw their healthy T1w; what a small network
adds to it voxel by voxel is learned, outside of the lesions that a real scan has. Written: ``models/t1_refiner.pt``.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from scripts.config import CONFIGS, parse
from scripts.methods import Guest
from scripts.residual import T1wRefiner, doubt
from scripts.saving import file_hash
from tqdm import tqdm

MODEL = CONFIGS.parent / "models/model.pt"
SAMPLES, OF_EACH = 160, 40_000  # samples, and voxels of each
SHARES = {"real": 0.5, "paired": 0.5}
ITERATIONS, BATCH, RATE = 6000, 16_384, 3e-3


def samples(folder: Path, bank: Path):
    """Generated samples, and the modality of each."""
    released = ConfigParser.load_config_file(str(CONFIGS / "sizes/released.yaml"))
    own = {"shares": SHARES, "bank": str(bank), "bank_prob": 1.0, "enhancement_prob": 0.0, "recontrast_prob": 0.0}
    own |= {"datalist": str(folder / "datalist.json"), "voxel_size": 2.0, "patch_size": [80, 96, 80], "seed": 5}
    own |= {"traced_masks": json.loads((folder / "masks.json").read_text())["training"], "rotation": 8.0, "shear": 0.1}
    own |= {"bending": [0.0, 2.0], "corruption_weights": [1.0, 1.0, 0.3], "anomaly_prob": 0.6}
    generator = parse(["generator.yaml"], {**released["generator"], **own})
    drawn, chosen = generator.get_parsed_content("rebank"), generator.get_parsed_content("choose_pair")
    dataset = generator.get_parsed_content("samples")
    pairs = {entry["subject"]: entry for entry in generator.get_parsed_content("training_subjects")}
    for number in range(SAMPLES):
        sample = dataset[number]
        if sample["kind"] == "real" and "lesion" in pairs[sample["subject"]]:
            continue  # as acquired, in a contrast that nothing tells
        if sample["kind"] == "paired":
            present = [key for key in ("t2", "flair") if key in pairs[sample["subject"]]]
            modality = present[chosen.choice]
        else:
            modality = drawn.transform.bank.sequences[drawn.transform.numbers[0]]["modality"]
        yield sample, modality


def write_refiner(folder: Path, bank: Path) -> None:
    """Write ``models/t1_refiner.pt``."""
    set_determinism(0)
    refiner = T1wRefiner(weights=file_hash(MODEL))
    method, random = Guest("una", {"calibration": False, "refiner": None}).method, np.random.RandomState(0)
    rows, wanted = [], []
    for sample, modality in tqdm(samples(folder, bank), total=SAMPLES, desc="samples"):
        with torch.no_grad():
            drawn, intact = (v[None] for v in method.predict(sample))
        brain = sample["brain"].as_tensor() > 0.5
        known = (sample["diseased"].as_tensor() == 0)[brain].numpy()
        known &= doubt(sample["scan"], brain, None, intact)[brain].numpy() < 0.5
        features = refiner.features(drawn, sample["scan"].as_tensor().float(), brain.float(), modality, 2.0)
        chosen = random.permutation(np.flatnonzero(known))[:OF_EACH]
        rows.append(features[chosen].half())
        wanted.append((sample["healthy"].as_tensor() - drawn)[brain][chosen].half())
    inputs, targets = torch.cat(rows), torch.cat(wanted)
    optimizer = torch.optim.Adam(refiner.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, ITERATIONS)
    for step in tqdm(range(ITERATIONS), desc="refiner"):
        batch = torch.randint(len(inputs), (BATCH,))
        off = refiner(inputs[batch].float()) - targets[batch].float()
        loss = torch.nn.functional.huber_loss(off, torch.zeros_like(off), delta=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 1000 == 999:
            print(f"{step + 1}: {off.abs().mean():.4f}, before {targets[batch].float().abs().mean():.4f}", flush=True)
    refiner.save(CONFIGS.parent / "models/t1_refiner.pt")


if __name__ == "__main__":
    write_refiner(*(Path(argument).resolve() for argument in sys.argv[1:]))
