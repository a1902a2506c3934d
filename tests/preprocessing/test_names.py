"""What names say: two people never become one, and only whole words count."""

import pytest
from scripts.preprocessing.names import modality_by_words, read_name


@pytest.mark.parametrize(
    ("stem", "person", "kind"),
    [
        ("patient1_T2w", "patient1", "t2"),
        ("patient2_T2w", "patient2", "t2"),
        ("s1_11_T1w", "s1_11", "t1"),
        ("s11_1_T1w", "s11_1", "t1"),
        ("subject2", "subject2", None),
        ("ct1", "ct1", None),
        ("lesion_study_01_T1w", "lesion_study_01", "t1"),
        ("nonlesional_02_T1w", "nonlesional_02", "t1"),
        ("unlabeled_03_T1w", "unlabeled_03", "t1"),
        ("fast2_scan", "fast2_scan", None),
        ("contrast1_scan", "contrast1_scan", None),
        ("scan.v1.2_T2w", "scan.v1.2", "t2"),
        ("sub.01.v2.T1w", "sub.01.v2", "t1"),
        ("sub-r1s1_ses-1_label-L_desc-T1lesion_mask", "sub-r1s1_ses-1", "lesion"),
        ("B-00000-000-t1c", "B-00000-000", "t1c"),
        ("B-00000-000-t1n", "B-00000-000", "t1"),
        ("anna_T1wCE", "anna", "t1c"),
        ("anna_T1_post_Gd", "anna", "t1c"),
        ("post_T1w", "post", "t1"),
        ("KM_T1w", "KM", "t1"),
        ("anna_T1w_KM", "anna", "t1c"),
        ("anna_T1+C", "anna", "t1c"),
        ("anna_T1_with_contrast", "anna", "t1c"),
        ("anna_T1_without_contrast", "anna", "t1"),
        ("anna_T1w_Gadovist", "anna", "t1c"),
        ("contrast1_T1w", "contrast1", "t1"),
        ("B-00000-000-t2f", "B-00000-000", "flair"),
        ("B-00000-000-seg", "B-00000-000", "lesion"),
        ("patient0_t1_lesion", "patient0", "lesion"),
        ("anna_T1w_brain", "anna", "t1"),
        ("anna_t2_dark_fluid", "anna", "flair"),
        ("aparc+aseg", "", "label"),
        ("brain_mask", "", "other"),
        ("t1", "", "t1"),
        ("Яна_T1w", "Яна", "t1"),
        ("李_FLAIR", "李", "flair"),
    ],
)
def test_names(stem, person, kind):
    named = read_name(stem)
    assert (named.person, named.kind) == (person, kind)


def test_series_descriptions():
    for text, modality in {
        "T1 MPRAGE SAG": "t1",
        "t2_tse_dark-fluid_tra": "flair",
        "AX T2 FLAIR": "flair",
        "3D_T2w": "t2",
        "Contrast series 2": None,
        "SAG FSPGR BRAVO": "t1",
        "AX T1 POST-GD": "t1c",
        "t1_mprage_sag Gadolinium": "t1c",
        "sub-01_ce-gadolinium_T1w": "t1c",
        "AX T2 POST GD": "t2",
        "T1 post contrast": "t1c",
        "t1_tse_tra_KM": "t1c",
        "AX T1 +C": "t1c",
        "T1 C+": "t1c",
        "T1 MPRAGE POST": "t1c",
        "t1_mpr_ce": "t1c",
        "T1 SE Dotarem": "t1c",
        "T1 SE TRA GADAVIST": "t1c",
        "T1 gadoterate": "t1c",
        "T1 pre contrast": "t1",
        "T1 w/o contrast": "t1",
        "t1 nativ ohne KM": "t1",
        "sub-01_ce-GADOBUTROL_T1w": "t1c",
        "sub-01_ce-none_T1w": "t1",
        "sub-01_acq-post_T1w": "t1c",
        "sub-post_T1w": "t1",
    }.items():
        assert modality_by_words(text) == modality, text
