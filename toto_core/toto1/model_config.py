"""The architecture of a Toto model, read from and written to the official ``config.json``; needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toto_core.model_folder import CONFIG_FILE, CheckpointError, ConfigError, config_fields

PATCH_SCALER = "<class 'model.scaler.CausalPatchStdMeanScaler'>"
STUDENT_T_MIXTURE = "<class 'model.distribution.MixtureOfStudentTsOutput'>"

_LARGEST = {
    "patch_size": 4096,
    "embed_dim": 65_536,
    "num_layers": 1024,
    "num_heads": 1024,
    "mlp_hidden_dim": 1_048_576,
    "k_components": 4096,
}
"""Beyond any model that a machine could hold: a larger number is a damaged file."""
_SIZES = ("patch_size", "embed_dim", "num_layers", "num_heads", "mlp_hidden_dim", "spacewise_every_n_layers")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The sizes of one Toto model.

    ``patch_size`` counts time steps; ``spacewise_every_n_layers`` is -1 for a model without space-wise
    layers. Raises ``ConfigError`` when the sizes contradict one another.
    """

    patch_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    mlp_hidden_dim: int
    spacewise_every_n_layers: int
    k_components: int
    spacewise_first: bool = False
    dropout: float = 0.0
    stabilize_with_global: bool = True
    scale_factor_exponent: float = 10.0

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            if not 1 <= getattr(self, name) <= largest:
                raise ConfigError(f"config: {name} must be from 1 to {largest}, not {getattr(self, name)}")
        if not 0 <= self.dropout <= 1:
            raise ConfigError(f"config: dropout must be from 0 to 1, not {self.dropout}")
        if not math.isfinite(self.scale_factor_exponent):
            raise ConfigError(
                f"config: scale_factor_exponent must be finite, not {self.scale_factor_exponent}"
            )
        if self.embed_dim % (2 * self.num_heads):
            raise ConfigError(
                f"config: embed_dim {self.embed_dim} must be a multiple of twice num_heads {self.num_heads}"
            )
        every = self.spacewise_every_n_layers
        if every != -1 and (every < 1 or self.num_layers % every):
            raise ConfigError(
                f"config: num_layers {self.num_layers} must be a multiple of spacewise_every_n_layers {every}"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embed_dim // self.num_heads

    @property
    def layer_axes(self) -> tuple[str, ...]:
        """For each layer, ``"time"`` or ``"space"``: the axis its attention runs over."""
        every = self.spacewise_every_n_layers
        if every == -1:
            return ("time",) * self.num_layers
        block = ("time",) * (every - 1)
        block = ("space", *block) if self.spacewise_first else (*block, "space")
        return block * (self.num_layers // every)

    @classmethod
    def from_official(cls, fields: Mapping[str, Any]) -> ModelConfig:
        """Build from the fields of an official ``config.json``.

        Raises ``ConfigError`` for a missing field, a stride other than the patch size, or another scaler or
        output distribution than the released models use.
        """
        try:
            return cls(
                **{name: int(fields[name]) for name in _SIZES},
                k_components=_components(fields),
                spacewise_first=bool(fields.get("spacewise_first", True)),
                dropout=float(fields.get("dropout", 0.0)),
                stabilize_with_global=bool(fields.get("stabilize_with_global", True)),
                scale_factor_exponent=float(fields.get("scale_factor_exponent", 10.0)),
            )
        except KeyError as missing:
            raise ConfigError(f"config: field {missing.args[0]!r} is missing") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise error if isinstance(error, ConfigError) else ConfigError(f"config: {error}") from None

    def to_official(self) -> dict[str, Any]:
        """The fields of an official ``config.json`` that describe this model."""
        return {
            "patch_size": self.patch_size,
            "stride": self.patch_size,
            "embed_dim": self.embed_dim,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "mlp_hidden_dim": self.mlp_hidden_dim,
            "dropout": self.dropout,
            "spacewise_every_n_layers": self.spacewise_every_n_layers,
            "scaler_cls": PATCH_SCALER,
            "output_distribution_classes": [STUDENT_T_MIXTURE],
            "spacewise_first": self.spacewise_first,
            "output_distribution_kwargs": {"k_components": self.k_components},
            "use_memory_efficient_attention": False,
            "stabilize_with_global": self.stabilize_with_global,
            "scale_factor_exponent": self.scale_factor_exponent,
        }


def read_config(folder: Path) -> ModelConfig:
    """The architecture of the model in ``folder``. Raises ``CheckpointError``."""
    fields = config_fields(folder)
    try:
        return ModelConfig.from_official(fields)
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from None


def _components(fields: Mapping[str, Any]) -> int:
    if int(fields["stride"]) != int(fields["patch_size"]):
        raise ConfigError("config: stride must equal patch_size")
    if fields["scaler_cls"] != PATCH_SCALER:
        raise ConfigError(f"config: scaler_cls {fields['scaler_cls']!r} is not supported")
    if list(fields["output_distribution_classes"]) != [STUDENT_T_MIXTURE]:
        raise ConfigError("config: only the mixture of Student-t output distribution is supported")
    return int((fields.get("output_distribution_kwargs") or {})["k_components"])
