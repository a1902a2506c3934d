"""Training learns, and stops when it cannot."""

import re
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.data import list_data_collate
from scripts.errors import InputError
from scripts.evaluation import region_errors
from scripts.learning import MixedPrecisionInferer, TrainingCheckpoint


@pytest.mark.parametrize(
    ("iterations", "psnr"),
    [(120, 17.0), pytest.param(1250, 30.0, marks=pytest.mark.slow)],
    ids=["begins", "over 30 dB"],
)
def test_overfits_one_sample_in_the_lesion(train_config, tmp_path, sample_datalist, iterations, psnr):
    parser = train_config(
        output_dir=str(tmp_path),
        datalist=str(sample_datalist),
        fold=1,
        features=[16, 16, 32, 32],
        voxel_size=7.0,
        patch_size=[32, 32, 32],
        generator={"shares": {"real": 1.0}},
        iterations=iterations,
        iterations_per_epoch=iterations,
        learning_rate=3e-3,
        lambda_p=10.0,
        seed=5,
        device=torch.device("cpu"),
    )
    dataset = parser.get_parsed_content("train::dataset")

    def psnr_in_lesion(candidate, sample):
        brain, lesion = sample["brain"].as_tensor() > 0, sample["anomaly"].as_tensor() > 0.2
        return region_errors(candidate, sample["healthy"].as_tensor(), brain, lesion, ["PSNR_D_region"]).item()

    # A lesion that is there to be removed.
    sample = next(s for s in map(dataset.__getitem__, range(50)) if psnr_in_lesion(s["scan"].as_tensor(), s) < 16.0)
    parser.update({"train::dataloader": [list_data_collate([sample])] * iterations})
    parser.parse(reset=False)
    torch.manual_seed(0)
    trainer = parser.get_parsed_content("train::trainer")
    trainer.run()
    with torch.no_grad():
        inputs = torch.cat([sample[key].as_tensor() for key in ("scan", "mirrored")])[None]
        pred = parser.get_parsed_content("network").eval()(inputs)[0, :1]
    assert psnr_in_lesion(pred, sample) > psnr


def test_every_validation_sees_the_same_draws(train_config, tmp_path, sample_datalist):
    parser = train_config(output_dir=str(tmp_path), datalist=str(sample_datalist), device=torch.device("cpu"))
    evaluator = parser.get_parsed_content("validate::evaluator")
    seen = []
    for epoch in (1, 2):
        evaluator.run(epoch)
        seen.append(dict(evaluator.state.metrics))
    assert seen[0] == seen[1]


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(tmp_path):
    network = torch.nn.Linear(1, 1)
    losses = iter([1.0, 0.5, float("nan"), 0.1])
    trainer = Engine(lambda engine, batch: [{"loss": next(losses)}])
    path = tmp_path / "last.pt"
    TrainingCheckpoint(path, {"network": network}).attach(trainer)
    with pytest.raises(InputError, match="became nan at iteration 3.*lower --learning_rate"):
        trainer.run([0, 0], max_epochs=2)
    assert torch.load(path, weights_only=True)["trainer"]["iteration"] == 2
    # Weights that broke in the very last step of an epoch do not replace sound ones either.
    with torch.no_grad():
        network.weight.fill_(float("nan"))
    TrainingCheckpoint(path, {"network": network}, resume=False).save(trainer)
    assert torch.isfinite(torch.load(path, weights_only=True)["network"]["weight"]).all()


def test_mixed_precision_leaves_grids_to_float32_that_bfloat16_breaks():
    seen = []

    class Probe(torch.nn.Conv3d):
        def forward(self, x):
            seen.append(super().forward(x).dtype)
            return x

    network = Probe(1, 1, 1)
    for size, enabled in ((48, True), (47, True), (48, False)):
        out = MixedPrecisionInferer(enabled)(torch.rand(1, 1, 48, 48, size), network)
        assert out.dtype == torch.float32
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1].split()
    fast = torch.bfloat16 if {"avx512_bf16", "bf16"} & set(flags) else torch.float32
    assert seen == [fast, torch.float32, torch.float32]
