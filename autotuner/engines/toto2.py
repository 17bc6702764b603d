"""Toto 2.0: nine quantiles a step, in ``toto_core.toto2``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.engines.folder_engine import FolderEngine
from autotuner.engines.protocol import Pipeline, Traits
from autotuner.machine.engine_versions import TOTO2
from autotuner.workload import Workload
from toto_core.model_files import locate
from toto_core.settings import KnobValue, RuntimeSettings
from toto_core.toto2.model_config import read_config

if TYPE_CHECKING:
    from toto_core.toto2 import Toto2Options

BLOCK, MASKED = "decode_block_size", "masked_attention"
"""Knobs: time steps that are decoded together, the default all at once; and whether attention has masks where nothing
is missing, so that requests with and without gaps share a graph."""
_ITS_OWN = {"layer_group_size", "num_variate_layers_per_group", "residual_attn_ratio"}
"""Fields of a configuration that no other family has."""
_BLOCK_PATCHES = (1, 4)


class Toto2(FolderEngine):
    """Official Toto 2.0 checkpoints, 4m to 2.5B."""

    name = TOTO2
    licence = "Apache-2.0"
    models = "Toto 2.0: Datadog/Toto-2.0-4m, -22m, -313m, -1B, -2.5B and their like"

    def knows(self, config: Mapping[str, Any]) -> bool:
        """By any field of its own."""
        return bool(_ITS_OWN & config.keys())

    def shape(self, folder: Path) -> tuple[int, str]:
        """Its patch, and its layers."""
        config = read_config(folder)
        return (
            config.patch_size,
            f"{config.num_layers} layers, {config.d_model} wide, patch {config.patch_size}",
        )

    def traits(self, workload: Workload) -> Traits:
        """All common settings but batches of samples, and how a horizon is decoded.

        A block shorter than the horizon is another forecast, which the drift limit judges.
        """
        patch = read_config(locate(workload.model, revision=workload.revision)).patch_size
        blocks = (patch * patches for patches in _BLOCK_PATCHES)
        shorter: tuple[KnobValue, ...] = tuple(b for b in blocks if b < workload.longest_prediction)
        return Traits(
            knobs={BLOCK: (0, *shorter), MASKED: (False, True)},
            ignored=("samples_per_batch",),
            one_pass=True,
        )

    def load(
        self,
        model: str,
        *,
        revision: str | None,
        settings: RuntimeSettings,
        device: str,
        artifacts: Path | None,
        measured: bool = False,
    ) -> Pipeline:
        """A ``Toto2Pipeline``."""
        from toto_core.toto2 import Toto2Pipeline

        return Toto2Pipeline.from_pretrained(
            model,
            device=device,
            settings=settings,
            options=_options(settings),
            revision=revision,
            artifacts=artifacts,
        )

    def exact(self, model: str, *, revision: str | None, device: str) -> Pipeline | None:
        """Every operation in float64."""
        from toto_core.exact_toto2 import ExactToto2Pipeline

        return ExactToto2Pipeline.load(model, device=device, revision=revision)


def _options(settings: RuntimeSettings) -> Toto2Options:
    from toto_core.toto2 import Toto2Options

    given: dict[str, Any] = {BLOCK: settings.value(BLOCK) or 0}
    if settings.value(MASKED):
        given["has_missing_values"] = True
    return Toto2Options(**given)
