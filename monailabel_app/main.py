"""MONAI Label app: ``monailabel start_server --app monailabel_app --studies FOLDER_OR_DICOMWEB_URL``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUNDLE = HERE.parent / "bundle"
sys.path.insert(0, str(BUNDLE))

import monailabel  # noqa: E402
from dicomweb_client.session_utils import create_session_from_user_pass  # noqa: E402
from lib import guard, standard_space, viewer  # noqa: E402
from lib.analysis import Analyst  # noqa: E402
from lib.dicom import DeskStore  # noqa: E402
from lib.folder import DeskFolder  # noqa: E402
from lib.learning import Learn  # noqa: E402
from lib.results import Anomaly, Healthy, Refine, Score  # noqa: E402
from lib.selection import Batch, Figures, HighestFirst, RandomScan  # noqa: E402
from lib.temporary import private_temporary_folder  # noqa: E402
from monailabel.config import settings  # noqa: E402
from monailabel.datastore.dicom import DICOMwebClientX  # noqa: E402
from monailabel.interfaces.app import MONAILabelApp  # noqa: E402
from monailabel.interfaces.datastore import Datastore  # noqa: E402
from monailabel.interfaces.tasks.infer_v2 import InferTask  # noqa: E402
from monailabel.interfaces.tasks.scoring import ScoringMethod  # noqa: E402
from monailabel.interfaces.tasks.strategy import Strategy  # noqa: E402
from monailabel.interfaces.tasks.train import TrainTask  # noqa: E402
from monailabel.utils.sessions import Sessions  # noqa: E402


class UNAApp(MONAILabelApp):
    """The reader's desk. ``--conf KEY VALUE``:

    - ``model_dir``: published weights, default ``model`` of the app.
    - ``variants``: folder of the families of models, default ``variants`` of the app.
    - ``training_data``: datalist of healthy subjects for training, default the bundle's sample subject.
    - ``session_hours``: after which an unused session, a scan that a reader opened from his own disk, is removed, default 1.
    - those of `guard.install`.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        temporary = private_temporary_folder()
        model_dir = Path(conf.get("model_dir", os.path.join(app_dir, "model")))
        variants = Path(conf.get("variants", HERE / "variants"))
        families = (Analyst(path, BUNDLE, model_dir) for path in sorted(variants.glob("*.yaml")))
        # Viewers offer the first model first: that of a family that draws the healthy brain, too.
        self.analysts = sorted(families, key=lambda analyst: not analyst.draws_healthy)
        self.training_data = conf.get("training_data")
        super().__init__(
            app_dir,
            studies,
            conf,
            name="UNA",
            description="Healthy brain anatomy from any scan, and what deviates from it. Research use only.",
            version="1.0",
        )
        # Scoring looks at every scan: readers start it, not every request.
        self._auto_update_scoring = False
        self._sessions = Sessions(str(temporary / "sessions"), int(3600 * float(conf.get("session_hours", 1))))
        if "monailabel.app" in sys.modules:
            guard.install(monailabel.app.app, self, conf)
            viewer.install(monailabel.app.app)
            standard_space.install(monailabel.app.app, self)

    def init_datastore(self) -> Datastore:
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return DeskFolder(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def _init_dicomweb_datastore(self) -> Datastore:
        session = None
        if settings.MONAI_LABEL_DICOMWEB_USERNAME and settings.MONAI_LABEL_DICOMWEB_PASSWORD:
            session = create_session_from_user_pass(
                settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
            )
        return DeskStore(
            client=DICOMwebClientX(url=self.studies, session=session),
            search_filter={},
            cache_path=settings.MONAI_LABEL_DICOMWEB_CACHE_PATH or None,
        )

    def init_infers(self) -> dict[str, InferTask]:
        kinds: dict[str, Callable[[Analyst], InferTask]] = {
            "anomaly": Anomaly,
            "refine": Refine,
            "score": Score,
            "healthy": Healthy,
        }
        return {f"{a.name}_{kind}": kinds[kind](a) for a in self.analysts for kind in a["models"]}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {a.name: Learn(a, self.training_data) for a in self.analysts if a["training"] is not None}

    def init_strategies(self) -> dict[str, Strategy]:
        strategies: dict[str, Strategy] = {"random": RandomScan()}
        for analyst in self.analysts:
            of = "" if analyst.name == "una" else f"_{analyst.name}"
            strategies[f"burden{of}"] = HighestFirst(analyst.name, "lesion_ml", "Most abnormal volume first")
            strategies[f"uncertainty{of}"] = HighestFirst(
                analyst.name, "uncertainty", "First where scan and mirrored scan lead to different healthy brains"
            )
        return strategies

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        return {analyst.name: Figures(analyst) for analyst in self.analysts}

    def init_batch_infer(self) -> Callable:
        return Batch(lambda name: self._infers[name].analyst.weights.info()["version"])

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """MONAI Label's; the figures of the scan go into the datastore, and its healthy T1w beside it into a DICOM archive."""
        result = super().infer(request, datastore)
        store = datastore or self.datastore()
        task = self._infers[request["model"]]
        if not isinstance(task, (Anomaly, Healthy)) or request["image"] not in store.list_images():
            return result
        analyst = task.analyst
        analysis = task.analysis({**request, "image": store.get_image_uri(request["image"])})
        store.update_image_info(request["image"], {analyst.name: analyst.figures(analysis)})
        if isinstance(store, DeskStore) and analyst.draws_healthy:  # OHIF lists no model that returns an image
            description = f"healthy T1w ({analyst.name} {result['params']['weights']})"
            result["params"]["series"] = store.add_series(
                request["image"], lambda: analyst.healthy(analysis), description, analysis["modality"] == "t1"
            )
        return result
