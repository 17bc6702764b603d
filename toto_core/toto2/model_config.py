"""The architecture of a Toto 2.0 model, read from and written to the official ``config.json``; needs no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toto_core.model_folder import CONFIG_FILE, CheckpointError, ConfigError, config_fields

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Quantile levels that every Toto 2.0 model is trained for."""

_LARGEST = {
    "patch_size": 4096,
    "d_model": 65_536,
    "num_heads": 1024,
    "num_layers": 1024,
    "d_ff": 1_048_576,
    "qk_dim": 4096,
    "v_dim": 4096,
}
"""Beyond any model that a machine could hold: a larger number is a damaged file."""
_SWITCHES = (
    "variate_layer_first",
    "attn_bias",
    "mlp_bias",
    "qk_norm",
    "norm_include_weight",
    "qk_norm_include_weight",
    "per_dim_scale",
    "use_xpos",
)


@dataclass(frozen=True, kw_only=True)
class Toto2Config:
    """The sizes and switches of one Toto 2.0 model, named as in the official ``config.json``.

    patch_size                    time steps in a patch.
    d_model, num_layers           width and depth.
    num_heads, num_groups         heads of queries; heads of keys and values, each shared by as many of queries.
    qk_dim, v_dim                 width of a head's queries and keys, and of its values.
    d_ff                          hidden width of the feed-forward blocks.
    layer_group_size              layers in a group, ``num_variate_layers_per_group`` of which attend across
                                  variates: the first ones with ``variate_layer_first``, else the last ones.
    norm_eps                      added to the mean square in every norm.
    attn_bias, mlp_bias           whether the layers' products have biases.
    norm_include_weight           whether norms have weights; those of queries and keys with
                                  ``qk_norm_include_weight``, where ``qk_norm`` normalises these at all.
    per_dim_scale                 whether queries have a learned factor for each dimension.
    use_xpos                      whether rotary positions decay with distance (xPos, Sun et al., 2022).
    residual_mult, residual_attn_ratio  how the factors of residuals were chosen; the checkpoint holds these itself.

    Raises ``ConfigError`` when the sizes contradict one another.
    """

    patch_size: int
    d_model: int
    num_heads: int
    num_layers: int
    layer_group_size: int
    num_variate_layers_per_group: int
    variate_layer_first: bool
    d_ff: int
    qk_dim: int
    v_dim: int
    num_groups: int
    norm_eps: float = 5e-5
    attn_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = True
    norm_include_weight: bool = False
    qk_norm_include_weight: bool = False
    per_dim_scale: bool = False
    use_xpos: bool = False
    residual_mult: float = 1.0
    residual_attn_ratio: float = 1.0

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            if not 1 <= getattr(self, name) <= largest:
                raise ConfigError(f"config: {name} must be from 1 to {largest}, not {getattr(self, name)}")
        self._check_multiple("d_model", "num_heads")
        self._check_multiple("num_heads", "num_groups")
        self._check_multiple("num_layers", "layer_group_size")
        if not 0 <= self.num_variate_layers_per_group <= self.layer_group_size:
            raise ConfigError(
                f"config: num_variate_layers_per_group must be from 0 to layer_group_size {self.layer_group_size}, "
                f"not {self.num_variate_layers_per_group}"
            )
        if self.qk_dim % 4:
            raise ConfigError(
                f"config: qk_dim must be a multiple of 4 for rotary positions, not {self.qk_dim}"
            )
        if not 0.0 < self.norm_eps < 1.0:
            raise ConfigError(f"config: norm_eps must be between 0 and 1, not {self.norm_eps}")

    @property
    def layer_axes(self) -> tuple[str, ...]:
        """For each layer, ``"time"`` or ``"variate"``: the axis its attention runs over."""
        across = self.num_variate_layers_per_group
        variate, time = ("variate",) * across, ("time",) * (self.layer_group_size - across)
        group = (*variate, *time) if self.variate_layer_first else (*time, *variate)
        return group * (self.num_layers // self.layer_group_size)

    @property
    def heads_per_group(self) -> int:
        """Query heads that share one head of keys and values."""
        return self.num_heads // self.num_groups

    def residual_factors(self, layer: int) -> tuple[float, float]:
        """What a new model's attention and feed-forward blocks weigh in a layer's residuals.

        Appendix G of the u-µP paper (Blake et al., 2024): blocks of a kind contribute equally, all of them
        ``residual_mult`` squared of the variance of what enters the first layer, attention ``residual_attn_ratio``
        times what feed-forward does.
        """
        ratio = self.residual_attn_ratio
        feed_forward = self.residual_mult * math.sqrt(2.0 / (1.0 + ratio * ratio))
        attention = ratio * feed_forward
        before = self.num_layers + layer * (attention**2 + feed_forward**2)
        return attention / math.sqrt(before), feed_forward / math.sqrt(before + attention**2)

    @classmethod
    def from_official(cls, fields: Mapping[str, Any]) -> Toto2Config:
        """Build from the fields of an official ``config.json``; fields that change no forecast are passed over.

        Raises ``ConfigError`` for a field that is missing, or that describes a model no released code can run.
        """
        try:
            _check_supported(fields)
            heads, width = int(fields["num_heads"]), int(fields["d_model"])
            given = {name: fields[name] for name in _SWITCHES if fields.get(name) is not None}
            qk_dim = int(fields.get("qk_dim") or width // max(heads, 1))
            return cls(
                patch_size=int(fields["patch_size"]),
                d_model=width,
                num_heads=heads,
                num_layers=int(fields["num_layers"]),
                layer_group_size=int(fields["layer_group_size"]),
                num_variate_layers_per_group=int(fields["num_variate_layers_per_group"]),
                d_ff=int(fields.get("d_ff") or _usual_d_ff(width)),
                qk_dim=qk_dim,
                v_dim=int(fields.get("v_dim") or qk_dim),
                num_groups=int(fields.get("num_groups") or heads),
                norm_eps=float(fields.get("norm_eps", 5e-5)),
                residual_mult=float(fields.get("residual_mult", 1.0)),
                residual_attn_ratio=float(fields.get("residual_attn_ratio") or 1.0),
                **_booleans(given),
            )
        except KeyError as missing:
            raise ConfigError(f"config: field {missing.args[0]!r} is missing") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise error if isinstance(error, ConfigError) else ConfigError(f"config: {error}") from None

    def to_official(self) -> dict[str, Any]:
        """The fields of an official ``config.json`` that describe this model."""
        constant = {"dropout_p": 0.0, "num_output_patches": 1, "pre_norm": True}
        return {**dataclasses.asdict(self), "heads_per_group": self.heads_per_group, **constant}

    def _check_multiple(self, name: str, of: str) -> None:
        value, divisor = getattr(self, name), getattr(self, of)
        if divisor < 1 or value % divisor:
            raise ConfigError(f"config: {name} {value} must be a multiple of {of} {divisor}")


def read_config(folder: Path) -> Toto2Config:
    """The architecture of the model in ``folder``. Raises ``CheckpointError``."""
    fields = config_fields(folder)
    try:
        return Toto2Config.from_official(fields)
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from None


def _check_supported(fields: Mapping[str, Any]) -> None:
    if float(fields.get("dropout_p") or 0.0):
        raise ConfigError("config: dropout_p must be 0, as the reference asks")
    if int(fields.get("num_output_patches", 1)) != 1:
        raise ConfigError(
            "config: num_output_patches must be 1, the only number that the reference can decode"
        )


def _booleans(given: Mapping[str, Any]) -> dict[str, bool]:
    """The switches; norms of queries and keys have weights where the others have, unless it is said."""
    for name, value in given.items():
        if not isinstance(value, bool):
            raise ConfigError(f"config: {name} must be true or false, not {value!r}")
    if "variate_layer_first" not in given:
        raise KeyError("variate_layer_first")
    return {"qk_norm_include_weight": bool(given.get("norm_include_weight", False)), **given}


def _usual_d_ff(width: int) -> int:
    """Two thirds of four times the width, rounded up to eight, as the reference chooses it."""
    return (int(4 * width * 2 / 3) + 7) // 8 * 8
