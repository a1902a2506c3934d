"""Training learns, and stops when it cannot."""

import pytest
import torch
from ignite.engine import Engine

from scripts.detection import region_errors
from scripts.errors import InputError
from scripts.learning import MixedPrecisionInferer, TrainingCheckpoint


def test_overfits_one_sample_to_psnr_over_30_in_the_lesion(train_config, tmp_path, sample_datalist):
    parser = train_config(
        output_dir=str(tmp_path),
        datalist=str(sample_datalist),
        features=[16, 16, 32, 32, 32, 16],
        voxel_size=5.0,
        patch_size=[48, 48, 48],
        shares={"real": 1.0},
        iterations=500,
        iterations_per_epoch=500,
        learning_rate=3e-3,
        lambda_p=10.0,
        seed=5,
        device=torch.device("cpu"),
    )
    parser.update({"train::sampler": [0] * 500})  # draw 0, again and again
    torch.manual_seed(0)
    trainer = parser.get_parsed_content("train::trainer")
    sample = parser.get_parsed_content("train::dataset")[0]
    image, healthy, anomaly, brain = (sample[key].as_tensor() for key in ("image", "healthy", "anomaly", "brain"))
    lesion = anomaly > 0.2
    assert lesion.any()

    def psnr_in_lesion(candidate):
        return region_errors(candidate, healthy, brain > 0, lesion, ["PSNR_D_region"]).item()

    assert psnr_in_lesion(image) < 25.0  # the lesion is there to be removed
    trainer.run()
    with torch.no_grad():
        inputs = torch.cat([image, sample["mirrored"].as_tensor()])[None]
        pred = parser.get_parsed_content("network").eval()(inputs)[0]
    assert psnr_in_lesion(pred) > 30.0


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
    assert seen == [torch.bfloat16, torch.float32, torch.float32]
