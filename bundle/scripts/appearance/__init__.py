"""How anatomy looks in a scan: random modality, painted anomaly, corruption, and the intensity scale."""

from .acquisition import RandAcquisition, RandAcquisitiond
from .bias_field import RandGridBiasField, RandGridBiasFieldd
from .coarse_noise import RandCoarseNoise, RandCoarseNoised
from .contrast_bank import ContrastBank, RandBankContrast, RandBankContrastd, write_contrast_bank
from .contrast_curve import RandContrastCurve, RandContrastCurved
from .encoding import RandAnomalyEncoding, RandAnomalyEncodingd
from .enhancement import RandEnhancement, RandEnhancementd
from .foreign_patch import RandForeignPatch, RandForeignPatchd
from .gamma import RandGamma, RandGammad
from .modality import RandModality, RandModalityd
from .scaling import ScaleToUnit, ScaleToUnitd, ScaleToWhiteMatter, ScaleToWhiteMatterd
from .typical_contrast import TypicalContrast, TypicalContrastd
from .typical_t1 import TypicalT1w, TypicalT1wd

__all__ = [
    "ContrastBank",
    "RandAcquisition",
    "RandAcquisitiond",
    "RandAnomalyEncoding",
    "RandAnomalyEncodingd",
    "RandBankContrast",
    "RandBankContrastd",
    "RandCoarseNoise",
    "RandCoarseNoised",
    "RandContrastCurve",
    "RandContrastCurved",
    "RandEnhancement",
    "RandEnhancementd",
    "RandForeignPatch",
    "RandForeignPatchd",
    "RandGamma",
    "RandGammad",
    "RandGridBiasField",
    "RandGridBiasFieldd",
    "RandModality",
    "RandModalityd",
    "ScaleToUnit",
    "ScaleToUnitd",
    "ScaleToWhiteMatter",
    "ScaleToWhiteMatterd",
    "TypicalContrast",
    "TypicalContrastd",
    "TypicalT1w",
    "TypicalT1wd",
    "write_contrast_bank",
]
