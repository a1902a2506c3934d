"""Two visits of one person: what changed is painted by hand into a real brain, so that the answer is known."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial.transform import Rotation
from scripts.errors import InputError
from scripts.evaluation import CHANGES, ChangeScore, Look, changed_parts
from scripts.preprocessing.coregister import moved_onto
from scripts.volumes import read_volume, voxel_ml

NEAR, LIMIT, LEAST = 0.5, 7.6, 0.1
SPOTS = {"new": (0, 3.0), "gone": (3.0, 0), "grown": (1.5, 4.0), "shrunk": (4.0, 1.5), "as before": (3.0, 3.0)}  # ml
PLACES = {
    "new": (-25, -20, 25),
    "gone": (25, 15, 25),
    "grown": (-25, 20, 25),
    "shrunk": (25, -25, 25),
    "as before": (-24, 0, 10),
}


@pytest.fixture(scope="module")
def brain(shared_data):
    files = sorted((shared_data / "healthy_t1w_2mm").glob("*_T1w.nii.gz"))
    return [read_volume(file) / 255.0 for file in files[:2]]


def ball(brain, place, ml):
    """A ball in the middle of the brain, mm from its centre."""
    inside = np.argwhere(np.asarray(brain[0]) > 0)
    middle = inside.mean(axis=0) + np.array(place) / 2.0
    away = np.sqrt(((np.indices(brain.shape[1:]).transpose(1, 2, 3, 0) - middle) ** 2).sum(-1)) * 2.0
    return away <= (ml * 1000 * 3 / 4 / np.pi) ** (1 / 3) if ml else np.zeros(brain.shape[1:], dtype=bool)


def visit(brain, number, seed, lesions=True, coil=0.1, motion=None):
    """The brain as a FLAIR-like scan with bright lesions, noise and a coil's field, and what its own analysis would say."""
    random = np.random.RandomState(seed)
    values = np.array(brain[0])
    mask = np.zeros(values.shape, dtype=bool)
    for name, sizes in SPOTS.items() if lesions else ():
        mask |= ball(brain, PLACES[name], sizes[number])
    inside = values > 0
    share = gaussian_filter(mask.astype(float), 0.5)
    field = np.exp(coil * gaussian_filter(random.normal(size=values.shape), 15.0) / 0.003)
    scan = (values * (1 - share) + 1.3 * share) * field * inside * (900 if number else 500)
    scan = np.where(inside, np.maximum(scan + 0.01 * scan.max() * random.normal(size=scan.shape), 1e-3), 0.0)
    to = np.eye(4) if motion is None else motion
    affine = torch.as_tensor(to) @ brain.affine.double()

    def there(v):
        return MetaTensor(torch.from_numpy(v[None].astype(np.float32)), affine=affine)

    return Look(f"visit{number}", "flair", there(2.0 * mask), there(values)), there(scan)


def moved(degrees=(4.0, -3.0, 6.0), shift=(3.0, -5.0, 4.0)):
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    motion[:3, 3] = shift
    return motion


def test_what_came_grew_shrank_and_went_is_named_with_its_volume(brain):
    change = ChangeScore(2.0, NEAR)(visit(brain[0], 0, 1), visit(brain[0], 1, 2, motion=moved()))
    parts = changed_parts(change, LIMIT, LEAST)
    each = voxel_ml(parts)
    found = {kind: float((parts == value).sum()) * each for value, kind in CHANGES.items()}
    assert found["new"] == pytest.approx(3.0, rel=0.3) and found["gone"] == pytest.approx(3.0, rel=0.3)
    # A rim of 2.5 ml is as thin as a voxel, whose borders count more or less.
    assert 1.0 < found["grown"] < 4.0 and 1.0 < found["shrunk"] < 4.0
    # What stayed is not marked: halfway it lies where the first visit has it, moved by half of the motion.
    still = MetaTensor(
        torch.from_numpy(ball(brain[0], PLACES["as before"], 3.0)[None].astype(np.float32)), affine=brain[0].affine
    )
    same = moved_onto(still, np.linalg.inv(change.motions[0]), parts) > 0.5
    assert int(same.sum()) > 100 and not (parts.as_tensor()[same] > 0).any()


def test_neither_visit_is_favoured(brain):
    """Exchanged, what was new is gone, at the same place."""
    one, other = visit(brain[0], 0, 1), visit(brain[0], 1, 2, motion=moved())
    forth, back = (changed_parts(ChangeScore(2.0, NEAR)(*pair), LIMIT, LEAST) for pair in ((one, other), (other, one)))
    volume = lambda parts, value: float((parts == value).sum()) * voxel_ml(parts)  # noqa: E731
    for value, opposite in ((1, 4), (2, 3), (3, 2), (4, 1)):
        assert volume(forth, value) == pytest.approx(volume(back, opposite), abs=0.3)


def test_nothing_changed_in_another_pose_and_coil(brain):
    change = ChangeScore(2.0, NEAR)(
        visit(brain[0], 0, 3, lesions=False, coil=0.1), visit(brain[0], 1, 4, lesions=False, coil=0.25, motion=moved())
    )
    assert not changed_parts(change, LIMIT, LEAST).any()
    middle = np.asarray(change.drawn[0][0]) > 0
    deep = distance_transform_edt(middle) > 4
    one, other = (np.asarray(scan[0])[deep] for scan in change.scans)
    assert np.abs(np.median(other / one) - 1) < 0.02 and np.corrcoef(one, other)[0, 1] > 0.9  # one scale, one place


def test_a_difference_that_no_score_supports_is_no_change(brain):
    look, scan = visit(brain[0], 1, 5)
    without = Look(look.name, look.modality, look.score * 0.0, look.drawn)
    change = ChangeScore(2.0, NEAR)(visit(brain[0], 0, 6, lesions=False), (without, scan))
    assert not changed_parts(change, LIMIT, LEAST).any()


def test_two_people_are_no_two_visits(brain):
    with pytest.raises(InputError, match="two people"):
        ChangeScore(2.0, NEAR)(visit(brain[0], 0, 1), visit(brain[1], 1, 2))
