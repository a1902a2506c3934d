"""Training learns: one subject, one lesion, until the lesion is gone."""

import torch

from scripts.detection import region_errors


def test_overfits_one_sample_to_psnr_over_30_in_the_lesion(train_config, tmp_path, sample_datalist):
    parser = train_config(
        output_dir=str(tmp_path),
        datalist=str(sample_datalist),
        features=[16, 16, 32, 32, 32, 16],
        shares={"real": 1.0},
        iterations=300,
        iterations_per_epoch=300,
        learning_rate=3e-3,
        amp=False,
        seed=5,
        device=torch.device("cpu"),
    )
    parser.update({"train::sampler": [0] * 300})  # draw 0, again and again
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
