"""Which scan next, what every scan's figures are, and many scans in one go."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from scripts.errors import InputError
from scripts.jobs import reason

from .analysis import Analyst

__all__ = ["Batch", "Figures", "HighestFirst", "RandomScan"]

logger = logging.getLogger(__name__)


class RandomScan(Strategy):
    """Any scan that no reader has finished."""

    def __init__(self) -> None:
        super().__init__("Any scan without a final label")

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        images = datastore.get_unlabeled_images()
        return {"id": random.choice(images)} if images else None


class HighestFirst(Strategy):
    """The unfinished scan with the highest figure; scans without figures come after those that have some.

    Args:
        family: of the models that gave the figures.
        figure: ``lesion_ml`` or ``uncertainty``, see `Analyst.figures`.
        description: for the viewer.
    """

    def __init__(self, family: str, figure: str, description: str) -> None:
        super().__init__(description)
        self.family = family
        self.figure = figure

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        images = datastore.get_unlabeled_images()
        if not images:
            return None

        def rank(image: str) -> float:
            return datastore.get_image_info(image).get(self.family, {}).get(self.figure, -1.0)

        chosen = max(sorted(images), key=rank)
        return {"id": chosen, self.figure: rank(chosen)}


class Figures(ScoringMethod):
    """Write the figures of every scan into the datastore; scans that have those of the weights in use are passed over.

    Args:
        analyst: of the family.
    """

    def __init__(self, analyst: Analyst) -> None:
        super().__init__("Lesion volume, mean score and uncertainty of every scan")
        self.analyst = analyst

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        version = self.analyst.weights.info()["version"]
        images = datastore.list_images()
        failed: dict[str, str] = {}
        done = 0
        for number, image in enumerate(images, 1):
            info = datastore.get_image_info(image).get(self.analyst.name, {})
            if info.get("weights") == version:
                continue
            try:
                figures = self.analyst.figures(self.analyst.analyse(datastore.get_image_uri(image)))
                datastore.update_image_info(image, {self.analyst.name: figures})
                done += 1
            except Exception as error:  # one scan must not stop the others; the message says what it was
                failed[image] = reason(error)
            logger.info(f"{number} of {len(images)}: {image} {failed.get(image, 'scored')}")
        return {"scored": done, "passed over": len(images) - done - len(failed), "failed": failed}


class Batch(BatchInferTask):
    """Inference over many scans. One that has the label of the weights in use already is passed over, so that a run that was
    stopped continues; ``"again": true`` does them all. One that cannot be analysed is named, and stops no other.

    Args:
        version: of the weights of a model's family.
    """

    def __init__(self, version: Callable[[str], int]) -> None:
        self.version = version

    def get_images(self, request: Mapping[str, Any], datastore: Datastore) -> list[str]:
        images = super().get_images(request, datastore)
        if request.get("again"):
            return images
        tag, version = request.get("label_tag", "original"), self.version(request["model"])

        def current(image: str) -> bool:
            info = datastore.get_label_info(datastore.get_label_by_image_id(image, tag) or "", tag)
            return info.get("model") == request["model"] and info.get("params", {}).get("weights") == version

        return [image for image in images if not current(image)]

    def __call__(self, request: dict[str, Any], datastore: Datastore, infer: Callable) -> dict[str, Any]:
        # Without a GPU MONAI Label 0.8.5 divides by their number here unless multi_gpu is off; and one worker, since
        # the analysis of one scan uses all cores.
        failed: dict[str, str] = {}

        def guarded(one: dict[str, Any], store: Datastore) -> dict[str, Any]:
            try:
                return infer(one, store)
            except Exception as error:  # one scan must not stop the others; the message says what it was
                failed[one["image"]] = reason(error)
                return {"failed": failed[one["image"]]}

        result = super().__call__({**request, "multi_gpu": False, "max_workers": 1}, datastore, guarded)
        if failed:
            named = "; ".join(f"{image}: {why}" for image, why in failed.items())
            raise InputError(
                f"{len(failed)} of {len(result)} scans could not be analysed (the others are done): {named}"
            )
        return result
