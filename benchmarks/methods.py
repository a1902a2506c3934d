"""The score of one scan by methods that look at it in different ways, and what PatchCore and a flow make of the same features."""

from __future__ import annotations

from pathlib import Path

import torch
from scripts.config import from_config
from scripts.data import ScanCache, find_scans, write_sample_subject
from scripts.learning import feature_codes
from scripts.methods import Guest

from .machine import Yardsticks, peak_megabytes, seconds

METHODS = (
    "intensity",
    "autoencoder",
    "autoencoder_3d",
    "student_teacher",
    "patchcore_released",
    "una",
    "disentangled",
    "simple_slice_net",
)
# PatchCore keeps 1 to 25 % of its vectors; 1 % of those of 108 scans is 47,000. The released bank has 4,000.
BANKS = (4_000, 47_000)
BACKBONES = {"efficientnet_lite0": [4, 10], "efficientnet_lite1": [6, 14], "efficientnet_lite2": [6, 14]}


def _case(directory: Path) -> dict:
    """The sample subject at 2 mm."""
    scan = write_sample_subject(directory).parent / "t1.nii.gz"
    preparation = from_config("evaluation.yaml", "preparation", {})
    return ScanCache(find_scans(scan, modality="t1"), preparation, None)[0]


def score(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """Seconds and memory of the score of a prepared scan; what a training would change of a network is not its speed."""
    case, results = _case(directory), []
    size = "x".join(map(str, case["scan"].shape[1:]))
    for name in METHODS:
        guest = Guest(name, {"cases": []})
        work = lambda: guest(case)  # noqa: B023, E731
        results.append(yardsticks.record(f"score, {name}", size, seconds(work, 3), peak_mb=round(peak_megabytes(work))))
    return results


def density(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """The same features, d = 128 of Lite0's blocks 4 and 10: all slices to a bank of neighbours, every third to a flow."""
    case = _case(directory)
    guest = Guest("simple_slice_net", {"cases": []})
    features, flow = guest["features"], guest["network"]
    looked, _, _ = features(case["scan"], case["brain"])
    features.depth = 1
    alone, _, _ = features(case["scan"], case["brain"])
    codes = feature_codes(looked.shape[1:], guest["code_size"], False, guest["modalities"], "t1").flatten(0, 2)
    vectors, single = looked.flatten(1).T, alone.flatten(1).T
    results = []
    with torch.no_grad():
        work = lambda: features(case["scan"], case["brain"])  # noqa: E731
        results.append(yardsticks.record("features of slices", f"{len(single)} places", seconds(work, 3)))
        work = lambda: flow.log_likelihood(vectors, codes)  # noqa: E731
        results.append(yardsticks.record("flow", f"{len(vectors)} vectors", seconds(work, 3)))
        for bank_size in BANKS:
            bank = torch.randn(bank_size, single.shape[1], generator=torch.Generator().manual_seed(0))
            work = lambda: [torch.cdist(part, bank).amin(dim=1) for part in single.split(4096)]  # noqa: B023, E731
            results.append(
                yardsticks.record("nearest of a bank", f"{len(single)} of {bank_size} vectors", seconds(work, 3))
            )
    return results


def backbones(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """Features of a scan by the backbones whose weights a package has; those that are not installed are left out."""
    case, results = _case(directory), []
    for name, blocks in BACKBONES.items():
        try:
            guest = Guest(
                "simple_slice_net",
                {"cases": [], "backbone": name, "blocks": blocks, "tuned_blocks": blocks, "checkpoint": None},
            )
            features = guest["features"]
        except Exception as error:
            print(f"left out: {name}: {error}")
            continue
        work = lambda: features(case["scan"], case["brain"])  # noqa: B023, E731
        memory = round(peak_megabytes(work))
        count = sum(value.numel() for value in guest["extractor"].used_state().values())
        results.append(
            yardsticks.record(f"features, {name}", f"{count / 1e6:.1f} M numbers", seconds(work, 3), peak_mb=memory)
        )
    return results
