"""A three-tissue label map of a healthy T1w that has none."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy.ndimage import gaussian_filter
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

__all__ = ["LabelTissuesd", "tissue_labels"]

LEFT, RIGHT = {"csf": 24, "gray_matter": 3, "white_matter": 2}, {"csf": 24, "gray_matter": 42, "white_matter": 41}
SMOOTHING = 0.7  # voxels, of the tissue probabilities
SAMPLES = 100_000
LEAST_GRAY = 0.4  # of the volume of white matter; below it the mixture has taken the cortex for white matter


def tissue_labels(t1: MetaTensor, brain: torch.Tensor, mirror_transform: np.ndarray) -> MetaTensor:
    """CSF, gray and white matter by a mixture of three Gaussians, left and right of the mid-sagittal plane.

    Where gray and white matter hardly differ, one Gaussian may take both. k-means, whose classes are equally wide, decides then.
    No deep gray matter, no cerebellum: enough to give a scan a domain and tissue means, worse than a segmentation.

    Args:
        t1: ``(1, X, Y, Z)`` healthy T1w, brain-extracted, bias-corrected.
        brain: its mask.
        mirror_transform: reflection across the mid-sagittal plane, 4x4 on RAS mm.

    Returns:
        int64 label map with FreeSurfer's numbers.
    """
    inside = np.asarray(brain[0]) > 0
    values = np.asarray(t1[0], dtype=np.float64)
    sample = values[inside][:: max(1, int(inside.sum()) // SAMPLES), None]
    start = np.percentile(sample, [5, 40, 85])[:, None]
    # A normalized scan may have its white matter at one value: a least width keeps that Gaussian from being a spike.
    width = 0.05 * float(np.percentile(sample, 99))
    mixture = GaussianMixture(3, means_init=start, reg_covar=width**2, random_state=0).fit(sample)
    order = np.argsort(mixture.means_[:, 0])
    probability = np.zeros((3, *values.shape))
    probability[:, inside] = mixture.predict_proba(values[inside][:, None])[:, order].T
    # Beyond the outer means a wide Gaussian may win over the narrow one that belongs there.
    low, high = mixture.means_[order[[0, 2]], 0]
    probability[:, inside & (values < low)] = np.array([[1.0], [0.0], [0.0]])
    probability[:, inside & (values > high)] = np.array([[0.0], [0.0], [1.0]])
    volumes = np.bincount(probability[:, inside].argmax(axis=0), minlength=3)
    if volumes[1] < LEAST_GRAY * volumes[2]:
        means = np.sort(KMeans(3, init=start, n_init=1, random_state=0).fit(sample).cluster_centers_[:, 0])
        classes = np.searchsorted((means[1:] + means[:-1]) / 2, values)
        probability = np.stack([inside & (classes == number) for number in range(3)]).astype(float)
    tissue = np.stack([gaussian_filter(p, SMOOTHING) for p in probability]).argmax(axis=0)
    voxels = np.argwhere(inside)
    world = voxels @ np.asarray(t1.affine)[:3, :3].T + np.asarray(t1.affine)[:3, 3]
    partner = world @ mirror_transform[:3, :3].T + mirror_transform[:3, 3]
    right = np.zeros(values.shape, dtype=bool)
    right[tuple(voxels.T)] = world[:, 0] > partner[:, 0]
    labels = np.zeros(values.shape, dtype=np.int64)
    for number, name in enumerate(("csf", "gray_matter", "white_matter")):
        labels[inside & (tissue == number)] = LEFT[name]
        labels[inside & (tissue == number) & right] = RIGHT[name]
    return MetaTensor(torch.from_numpy(labels)[None], affine=t1.affine)


class LabelTissuesd(MapTransform):
    """Add ``label``, the `tissue_labels` of a prepared healthy T1w, all with the numbers of the left side.

    Args:
        keys: one key, the T1w.
        brain_key: its brain mask.
    """

    def __init__(self, keys: KeysCollection, brain_key: str = "brain") -> None:
        super().__init__(keys)
        self.brain_key = brain_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, "label": tissue_labels(data[self.keys[0]], data[self.brain_key], np.eye(4))}
