"""How anatomy looks in a scan: random modality, painted anomaly, corruption, and the intensity scale."""

from .acquisition import RandAcquisition, RandAcquisitiond
from .bias_field import RandGridBiasField, RandGridBiasFieldd
from .encoding import RandAnomalyEncoding, RandAnomalyEncodingd
from .gamma import RandGamma, RandGammad
from .modality import RandModality, RandModalityd
from .scaling import ScaleToUnit, ScaleToUnitd

__all__ = [
    "RandAcquisition",
    "RandAcquisitiond",
    "RandAnomalyEncoding",
    "RandAnomalyEncodingd",
    "RandGamma",
    "RandGammad",
    "RandGridBiasField",
    "RandGridBiasFieldd",
    "RandModality",
    "RandModalityd",
    "ScaleToUnit",
    "ScaleToUnitd",
]
