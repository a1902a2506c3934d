"""Every command of the documentation runs, in a folder that has the files which the documentation names."""

import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from conftest import ROOT, bundle_environment, config, forked, options
from test_docs import PAGES, commands

# A command may need what an earlier one wrote.
ORDER = ["generating", "preprocessing", "packing", "banking", "training", "registering", "evaluating", "calibrating"]
PEOPLE = ("packing", "training", "evaluating", "registering")  # their datalists have people, those of the others scans
GRID = {"voxel_size": 6.0, "patch_size": [32, 48, 32]}
SMALL = {**GRID, "features": [8, 8, 8, 8], "iterations": 1, "iterations_per_epoch": 1, "validation_draws": 1}
FEW = {
    "generating": {**GRID, "number": 2},
    "preprocessing": {"voxel_size": 4.0},
    "packing": SMALL,
    "banking": {"voxel_size": 6.0, "iterations": 2},
    "training": SMALL,
    "evaluating": SMALL,
    "registering": {"grid_spacing": 40.0},
    "calibrating": {"share": 0.5},
    "comparing": {"methods": ["intensity"], "voxel_size": 4.0},
}
GUEST = {"voxel_size": 6.0, "slice_size": [32, 48], "iterations": 1, "iterations_per_epoch": 1, "scans_per_step": 1}


@pytest.fixture
def place(tmp_path, sample_datalist):
    """A folder with the bundle and the files that the documentation names: two people with a lesion and four without."""
    (tmp_path / "bundle").symlink_to(ROOT / "bundle")
    (tmp_path / "configs").symlink_to(ROOT / "bundle/configs")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    made = {"output_dir": tmp_path / "cases", "number": 2, "voxel_size": 3.0, "patch_size": [64, 80, 64]}
    made |= {"datalist": sample_datalist, "shares": {"real": 1.0}}
    here(tmp_path, ["generating", *config("generate"), *options(**made)])
    ill = json.loads((tmp_path / "cases/datalist.json").read_text())["test"]
    for entry in ill:
        mask = nib.load(tmp_path / "cases" / entry["anomaly"])
        lesion = (mask.get_fdata() > 0.2).astype(np.uint8)
        entry["lesion"] = entry["image"].replace("image", "lesion")
        nib.save(nib.Nifti1Image(lesion, mask.affine), tmp_path / "cases" / entry["lesion"])
        for key in [key for key in entry if key not in ("subject", "modality", "mirror_transform")]:
            entry[key] = str(tmp_path / "cases" / entry[key])
        del entry["anomaly"], entry["label"]
    healthy, random = [], np.random.RandomState(0)
    scan = nib.load(ill[0]["healthy"])
    for number in range(4):
        noisy = scan.get_fdata() * (1 + 0.03 * random.normal(size=scan.shape))
        path = tmp_path / f"cases/p{number}_T1w.nii.gz"
        nib.save(nib.Nifti1Image(noisy.astype(np.float32), scan.affine), path)
        healthy.append({"subject": f"p{number}", "image": str(path), "modality": "t1", "diseased": False})
    known = json.loads(sample_datalist.read_text())["training"][0]
    known |= {key: str(sample_datalist.parent / known[key]) for key in ("t1", "label")}
    person = {**known, "image": known["t1"], "modality": "t1", "diseased": False}
    pair = {**known, "t2": known["t1"], "subject": "pair"}
    people = {"training": [known], "validation": [known]}
    scans = {
        "training": [person],
        "validation": [healthy[1], ill[1]],
        "test": [ill[0], healthy[0]],
    }
    lists = {
        "people.json": people,
        "scans.json": scans,
        "healthy.json": {"test": healthy},
        "pairs.json": {"training": [pair]},
    }
    lists["people_and_pairs.json"] = {**people, "training": [known, pair]}
    lists["runs/comparison_data/label_maps.json"] = people
    lists |= dict.fromkeys(("runs/healthy/cavities.json", "runs/frontier_lesions.json"), scans)
    lists["runs/comparison_data/datalist.json"] = scans
    for name, content in lists.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    for folder in ("FOLDER", "raw_scans"):
        (tmp_path / folder).mkdir()
        for name in ("one", "two"):
            shutil.copy(ill[0]["image"], tmp_path / folder / f"{name}_T1w.nii.gz")
    for name in ("scan", "thick"):
        shutil.copy(healthy[0]["image"], tmp_path / f"{name}.nii.gz")
    shutil.copy(ill[0]["lesion"], tmp_path / "lesion1.nii.gz")
    return tmp_path


def here(folder, words):
    return forked.run(
        ["run", *map(str, words)],
        folder=folder,
        environment={**bundle_environment(), "PYTHONPATH": str(ROOT / "bundle")},
        timeout=900,
    )


def documented() -> list[list[str]]:
    """The commands of all pages, each once, in an order in which they can run."""
    found = {tuple(words[words.index("run") + 1 :]): None for page in PAGES for words in commands(page)}
    return sorted(map(list, found), key=lambda words: ORDER.index(words[0]) if words[0] in ORDER else len(ORDER))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_command_of_the_documentation_runs(place):
    failed, settings = {}, str({"features": SMALL["features"], "calibration": False})
    for number, words in enumerate(documented()):
        text = " ".join(words)
        if "multi_gpu_train" in text:  # torchrun starts it: see test_commands.py
            continue
        more = dict(GUEST if "guest.yaml" in text else FEW.get(words[0], {}))
        if words[0] == "training" and not re.search(r"train\.yaml --output_dir runs/train$|denoising", text):
            more["output_dir"] = f"runs/training{number}"
        if "paper.yaml" in text:
            more |= {"batch_size": 1, "fold": 1}
        if words[0] == "packing" and "released" in text:
            more["output_dir"] = "runs/packed_elsewhere"
        if "--packed subjects.npz" in text:
            shutil.copy(place / "runs/packed_elsewhere/subjects.npz", place)
        if "--method denoising" in text:
            more["voxel_size"] = GUEST["voxel_size"]
        of_people = words[0] in PEOPLE and "guest.yaml" not in text
        shutil.copy(place / ("people.json" if of_people else "scans.json"), place / "my.json")
        if "runs/train/model.pt" in text:
            own = {"input": "healthy.json", "output_dir": "runs/own", "checkpoint": "runs/train/model.pt"}
            own |= {"method_settings": settings, "voxel_size": 6.0, "share": 0.5}
            here(place, ["calibrating", *config("inference", "calibrate"), *options(**own)])
            more |= {"voxel_size": 6.0}
            words = [
                word.replace("runs/calibration/", "runs/own/").replace("{", "{'features':[8,8,8,8],") for word in words
            ]
        done = here(place, [*words, *options(**more)])
        print(number, done.returncode, text, flush=True)
        missed = words[0] == "gating" and "healthy brains are not left alone" in done.stderr  # noise is no person
        if done.returncode != 0 and not missed:
            failed[text] = done.stderr[-700:]
    assert not failed, "\n\n".join(f"{text}\n{said}" for text, said in failed.items())
