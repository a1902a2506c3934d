"""What the house asks of every method, asked of every file in configs/methods at toy size."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import TINY_ANATOMY
from ignite.engine import Events
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch
from scripts.config import from_config, method_files, method_names, parse
from scripts.data import ScanCache, find_scans
from scripts.errors import InputError
from scripts.methods import GIVEN, Guest, guests
from sklearn.metrics import average_precision_score

VOXEL = 4.0  # mm
SIZE = [48, 64]
TOY = {
    "voxel_size": VOXEL,
    "slice_size": SIZE,
    "iterations": 40,
    "iterations_per_epoch": 20,
    "scans_per_step": 1,
    "slices_per_scan": 8,
}
TOY_OF = {
    **{name: {"iterations": 20, "steps": 2} for name in ("diffusion", "diffusion_perlin", "latent_diffusion")},
    "autoencoder_3d": {"volume_size": [48, 64, 48]},
    "patchcore": {"bank_size": 400, "samples": 400},
    "patchcore_released": {"bank_size": 400, "samples": 400, "checkpoint": None},
    "vae_mahalanobis": {"draws": 4},
    "disentangled": {
        "checkpoint": None,
        "iterations": 4,
        "iterations_per_epoch": 4,
        "patch_size": [32, 48, 32],
        **TINY_ANATOMY,
    },
    "simple_slice_net": {"checkpoint": None, "tuning_iterations": 10, "iterations_per_epoch": 10, "vectors": 512},
    "fluid_segmenter": {"generator": {"num_times": [2, 3]}, "iterations": 40},
}
UNA = {  # gradients are tested where the training is; here a few steps show that the whole road works
    "features": [8, 8, 8, 8],
    "iterations": 2,
    "iterations_per_epoch": 2,
    "checkpoint": None,
    "calibration": None,
    "threshold": None,
    "bright_modalities": [],
}


@pytest.fixture(scope="module")
def people(sample_datalist, tmp_path_factory):
    """A datalist of five people as T2w, the sample subject at 4 mm, stretched and noisy; ``with_t1w.json``: one of them as T1w."""
    folder = tmp_path_factory.mktemp("people")
    t1 = nib.load(sample_datalist.parent / "t1.nii.gz")
    values = t1.get_fdata()[::4, ::4, ::4]
    brain = values > 0
    bright = np.where(brain, 1.0 - 0.8 * values / np.percentile(values[brain], 99), 0.0).clip(0.0)
    random = np.random.RandomState(0)
    entries = []
    for number in range(5):
        affine = t1.affine @ np.diag([*(4.0 * random.uniform(0.95, 1.05, 3)), 1.0])
        noisy = np.where(brain, bright + 0.02 * random.normal(size=bright.shape), 0.0).clip(0.0)
        nib.save(nib.Nifti1Image((1000 * noisy).astype(np.float32), affine), folder / f"person{number}.nii.gz")
        entries.append({"subject": f"person{number}", "image": f"person{number}.nii.gz", "modality": "t2"})
    (folder / "datalist.json").write_text(json.dumps({"training": entries[:4], "test": entries[4:]}))
    in_t1w = [{**entries[0], "image": str(sample_datalist.parent / "t1.nii.gz"), "modality": "t1"}]
    (folder / "with_t1w.json").write_text(json.dumps({"training": in_t1w + entries[1:4], "test": entries[4:]}))
    return folder / "datalist.json"


@pytest.fixture(scope="module")
def case(people):
    """The fifth person, with a bright ball of 20 ml in white matter, and the mask of the ball."""
    preparation = from_config("evaluation.yaml", "preparation", {"voxel_size": VOXEL})
    prepared = ScanCache(find_scans(people, ["test"]), preparation, people.parent / "cache")[0]
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in prepared["scan"].shape[1:]), indexing="ij")).float()
    middle = torch.as_tensor(prepared["brain"][0]).nonzero().float().mean(dim=0) + torch.tensor([7.0, 2.0, 5.0])
    near = (grid - middle[:, None, None, None]).norm(dim=0) * VOXEL
    ball = (near <= (20e3 * 3 / (4 * np.pi)) ** (1 / 3))[None] & (torch.as_tensor(prepared["brain"]) > 0)
    scan = MetaTensor(torch.where(ball, 1.0, torch.as_tensor(prepared["scan"])), meta=dict(prepared["scan"].meta))
    return {**prepared, "scan": scan}, ball


def test_every_method_has_its_contract():
    assert {"una", "intensity", "autoencoder", "patchcore", "fluid_segmenter"} <= set(method_names())


# What another file of the same kind asks every day is asked of these in the slow run.
SLOW = {"diffusion_perlin", "fluid_segmenter", "una_no_contrast", "una_no_fluid", "una_noise_seeds"}
SLOW |= {"student_teacher", "fpi", "fanogan", "una_no_mirror", "latent_diffusion", "vae_gradient", "autoencoder_ssim"}
SLOW |= {name for name in method_names() if name.startswith(("disentangled_", "simple_slice_net_"))}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in method_names()]
)
def test_fit_score_save_and_load(name, people, case, sample_datalist, tmp_path):
    own = UNA if name.startswith("una") else {}
    for file in method_files(name):
        own = {**own, **TOY_OF.get(Path(file).stem, {})}
    settings = {
        **TOY,
        "datalist": str(people),
        "generator_datalist": str(sample_datalist),
        "cache_dir": str(people.parent / "cache"),
        "output_dir": str(tmp_path),
        **own,
    }
    if name.startswith("una"):
        settings["train_settings"] = {"patch_size": [32, 48, 32], "validation_draws": 1}
    if name == "disentangled_real":  # its pairs are T1w in two contrast curves
        settings["datalist"] = str(people.with_name("with_t1w.json"))
    guest = Guest(name, settings)
    guest.train()
    scan, ball = case
    found = guest(scan)
    score = found["score"]
    assert score.dtype == torch.float32 and torch.isfinite(score).all() and float(score.min()) >= 0.0
    torch.testing.assert_close(score.affine, scan["scan"].affine)
    brain = torch.as_tensor(scan["brain"]) > 0
    assert float(score[~brain].max()) == 0.0 and float(score[brain].max()) > 0.0
    # What was saved scores as what was trained, to the bit.
    again = Guest(name, {**settings, "checkpoint": str(tmp_path / "method.pt")})
    assert torch.equal(torch.as_tensor(again(scan)["score"]), torch.as_tensor(score))
    if not name.startswith("una"):  # whose shipped weights are asked below
        assert float(score[ball].mean()) > float(score[brain & ~ball].mean())


def test_weights_that_two_methods_share_are_trained_as_the_first_says(people, tmp_path):
    common = {**TOY, "iterations": 2, "iterations_per_epoch": 2, "datalist": str(people)}
    common["cache_dir"] = str(people.parent / "cache")
    # vae has no key "draws", and the number of steps is its own.
    own = {"vae_mahalanobis": {"draws": 3, "iterations": 400}, "vae": {"iterations": 4}}
    ready = guests(["vae_mahalanobis", "vae"], tmp_path, common, own)
    first = ready["vae_mahalanobis"]()
    assert first["draws"] == 3 and [folder.name for folder in tmp_path.iterdir()] == ["vae"]
    trained = torch.load(tmp_path / "vae/last.pt", weights_only=True)["trainer"]["iteration"]
    assert trained == 4
    assert ready["vae"]().about["weights"] == first.about["weights"]
    with pytest.raises(InputError, match="settings_of names vea, and there is no such method"):
        guests(["vae"], tmp_path, common, {"vea": {}})


def test_a_training_begins_with_the_weights_it_is_given(people, tmp_path):
    settings = {**TOY, "iterations": 4, "datalist": str(people), "cache_dir": str(people.parent / "cache")}
    Guest("autoencoder", {**settings, "output_dir": str(tmp_path / "first")}).train()
    first, second = (tmp_path / which / "method.pt" for which in ("first", "second"))
    begun = {**settings, "initial_weights": str(first), "output_dir": str(tmp_path / "second")}
    Guest("autoencoder", {**begun, "trainers": []}).train()
    one, other = (torch.load(file, weights_only=True) for file in (first, second))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    Guest("autoencoder", begun).train()
    after = torch.load(second, weights_only=True)
    moved = max(float((value - after[key]).abs().max()) for key, value in one.items())
    assert 0.0 < moved < 0.05  # AdamW moves no weight by more than the sum of its steps


def test_the_shipped_disentangled_anatomy_redraws_a_head_from_its_edges(sample_datalist):
    guest = Guest("disentangled", {"cases": []})
    assert Path(guest["checkpoint"]).stat().st_size < 20e6
    entry = {"subject": "sample", "image": str(sample_datalist.parent / "t1.nii.gz"), "modality": "t1"}
    prepared = from_config("evaluation.yaml", "preparation", {})(entry)
    scan, brain = torch.as_tensor(prepared["scan"]), torch.as_tensor(prepared["brain"]) > 0
    drawn = torch.as_tensor(guest(prepared)["pred_healthy"])
    flat = (scan - scan[brain].median()).abs()[brain].mean()
    assert float((scan - drawn).abs()[brain].mean()) < 0.8 * float(flat)


ONE_BY_ONE = {"iterations": 2, "iterations_per_epoch": 1, "scans_per_step": 1}


@pytest.mark.parametrize("name", [pytest.param("disentangled", marks=pytest.mark.slow), "simple_slice_net"])
def test_a_stopped_training_ends_as_one_that_ran_through(name, people, sample_datalist, tmp_path):
    def guest(folder):
        settings = {**TOY_OF[name], **ONE_BY_ONE, "voxel_size": VOXEL, "slice_size": SIZE, "output_dir": str(folder)}
        settings |= {"tuning_iterations": 1, "slices_per_scan": 2} if name == "simple_slice_net" else {}
        cache = str(people.parent / "cache")
        return Guest(
            name, {**settings, "datalist": str(people), "generator_datalist": str(sample_datalist), "cache_dir": cache}
        )

    def stop(engine):
        raise KeyboardInterrupt

    guest(tmp_path / "through").train()
    halted = guest(tmp_path / "halted")
    halted["initialize"]
    work = halted["train_method"]  # made in the order in which `train` makes it: the networks begin alike
    halted["trainer"].add_event_handler(Events.EPOCH_COMPLETED(once=1), stop)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert not (tmp_path / "halted" / "method.pt").exists()
    guest(tmp_path / "halted").train()
    one, other = (torch.load(tmp_path / which / "method.pt", weights_only=True) for which in ("through", "halted"))
    flat = lambda state: {  # noqa: E731
        f"{key} {inner}": value
        for key, part in state.items()
        for inner, value in (part.items() if isinstance(part, dict) else [("", part)])
    }
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    unlike = [key for key in one if not torch.equal(one[key], other[key])]
    assert not unlike, json.dumps(unlike[:5])


def test_a_method_never_sees_the_truth(case):
    scan, ball = case

    class Watched(dict):
        def __getitem__(self, key):
            assert key in (*GIVEN, "seen"), f"the method was handed '{key}'"
            return super().__getitem__(key)

    guest = Guest("contralateral")
    assert torch.equal(guest(Watched(scan, lesion=ball))["score"], guest({**scan, "lesion": ~ball})["score"])


def test_a_score_counts_in_limits_of_its_modality(case):
    scan, _ = case
    plain, limited = Guest("contralateral"), Guest("contralateral", {"limits": {"t2": 0.25}})
    torch.testing.assert_close(limited(scan)["score"], 4.0 * plain(scan)["score"])
    with pytest.raises(InputError, match="limits of this Contralateral are of t2, not of flair"):
        limited({**scan, "modality": "flair"})
    of_t1 = Guest("contralateral", {"limits": {"t1": 0.5}})
    torch.testing.assert_close(of_t1({**scan, "modality": "t1c"})["score"], 2.0 * plain(scan)["score"])  # a T1w, too


def test_files_of_methods_leave_the_evaluation_alone():
    keys = set(parse(["evaluation.yaml"], {}).get()) - {"voxel_size"}
    for name in method_names():
        own = set(Guest(name).parser.get()) - set(parse(["guest.yaml"], {}).get())
        assert not keys & own, f"{name} sets {keys & own}, which belongs to the evaluation"


def test_weights_of_another_method_and_unknown_methods_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other.pt holds no weights of this Reconstruction"):
        Guest("vae", {"checkpoint": str(tmp_path / "other.pt")}).method  # noqa: B018
    with pytest.raises(InputError, match=r"there are no weights at .*absent.pt"):
        Guest("vae", {"checkpoint": str(tmp_path / "absent.pt")}).method  # noqa: B018
    with pytest.raises(InputError, match=r"there is no method 'vea'; the methods are .*vae"):
        Guest("vea")


def test_a_method_of_ones_own_is_one_file(tmp_path, case):
    (tmp_path / "mine.yaml").write_text(
        "title: mine\nmethod:\n  _target_: scripts.methods.IntensityThreshold\n  bright: [t2]\n"
    )
    guest = Guest(str(tmp_path / "mine.yaml"))
    assert guest.about["name"] == "mine" and guest.about["title"] == "mine"
    scan, ball = case
    assert float(guest(scan)["score"][ball].min()) > 0.9


def test_the_shipped_una_beats_the_baselines_on_a_simulated_lesion(sample_datalist, tmp_path):
    """UNA must detect: a lesion of 20 ml, a little darker than white matter, in the sample subject at 2 mm."""
    t1 = nib.load(sample_datalist.parent / "t1.nii.gz")
    values = t1.get_fdata()
    world = np.stack(np.meshgrid(*(np.arange(n) for n in values.shape), indexing="ij"), axis=-1) @ t1.affine[:3, :3].T
    inside = np.linalg.norm(world + t1.affine[:3, 3] - [28.0, -20.0, 28.0], axis=-1) < (20e3 * 3 / (4 * np.pi)) ** (
        1 / 3
    )
    level = 0.45 * np.percentile(values[values > 0], 95)
    scan = np.where(
        inside & (values > 0), level * (1 + 0.05 * np.random.RandomState(0).normal(size=values.shape)), values
    )
    nib.save(nib.Nifti1Image(scan.astype(np.float32), t1.affine), tmp_path / "scan.nii.gz")
    preparation = from_config("evaluation.yaml", "preparation", {})
    prepared = ScanCache(find_scans(tmp_path / "scan.nii.gz", modality="t1"), preparation, None)[0]
    truth = ResampleToMatch(mode="bilinear")(
        MetaTensor(torch.from_numpy(inside[None].astype(np.float32)), affine=torch.from_numpy(t1.affine)),
        prepared["scan"],
    )
    brain = np.asarray(prepared["brain"]) > 0
    precision = {
        name: average_precision_score(
            (np.asarray(truth) > 0.5)[brain], np.asarray(Guest(name)(prepared)["score"])[brain]
        )
        for name in ("una", "intensity", "contralateral")
    }
    assert precision["una"] > 0.6
    assert precision["una"] > precision["intensity"] + 0.1 and precision["una"] > precision["contralateral"] + 0.1, (
        precision
    )
