"""``autotune.toml``: what the daemon tunes, when, and within what limits; variables override it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from autotuner.daemon.cluster_address import UNNAMED, fault_of, has_unnamed
from autotuner.errors import UsageError
from autotuner.sharing.keys import KEY_VARIABLE
from toto_core.prices.options import PriceOptions, PriceSource
from toto_core.symbols import SymbolError, parse_symbol

Share = Annotated[float, Field(ge=0, le=64)]
Seconds = Annotated[float, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DaemonConfig(_Section):
    """``[daemon]``: schedule, watchlist and limits."""

    schedule: str = "17 3 * * *"
    timezone: str = "UTC"
    jitter_seconds: Seconds = 60.0
    watchlist: Path | None = None
    device: str = "cpu"
    on: str | None = None
    environments: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    calendar: str | None = None
    load_ceiling: Share = 0.8
    nice: Annotated[int, Field(ge=0, le=19)] = 10
    threads: Annotated[int, Field(ge=1)] | None = None
    budget_seconds_per_day: Seconds = 3600.0
    cool_down_hours: Annotated[float, Field(ge=0)] = 6.0
    recheck_hours: Annotated[float, Field(ge=0)] = 20.0
    canary_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    run_seconds: Annotated[float, Field(gt=0)] = 300.0
    max_age_days: Annotated[float, Field(gt=0)] = 7.0
    cache_days: Annotated[float, Field(ge=0, le=36_500)] = 30.0
    cache_gb: Annotated[float, Field(ge=0, le=1_000_000)] = 20.0
    http: str | None = "127.0.0.1:9478"

    @field_validator("on")
    @classmethod
    def _name_a_cluster(cls, on: str | None) -> str | None:
        fault = None if on is None else fault_of(on)
        if fault is not None:
            raise ValueError(fault)
        return on

    @field_validator("environments")
    @classmethod
    def _name_its_environments(cls, environments: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if has_unnamed(environments):
            raise ValueError(UNNAMED)
        if environments and info.data.get("on") is None:
            raise ValueError("they are nodes of a cluster: name one with on")
        return environments


class SymbolConfig(_Section):
    """``[symbols.AMD]``: what differs for one symbol; what is left out is as ``autotune run`` has it."""

    profile: str | None = None
    model: str | tuple[str, ...] | None = None
    workload: Path | None = None
    data: Path | None = None
    context_length: Annotated[int, Field(ge=1)] | None = None
    prediction_length: Annotated[int, Field(ge=1)] | None = None
    num_samples: Annotated[int, Field(ge=0)] | None = None
    calls_per_process: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1000)] | None = None

    def arguments(self) -> list[str]:
        """Options of ``autotune run``, those of the prices left out."""
        given = self.model_dump(exclude_none=True, exclude={"data"})
        several = {name: value if isinstance(value, tuple) else (value,) for name, value in given.items()}
        return [
            part
            for name, values in several.items()
            for value in values
            for part in (f"--{name.replace('_', '-')}", str(value))
        ]


class PricesConfig(_Section):
    """``[prices]``: how price files are to be read, where they leave a choice; commands that read them obey too."""

    price_column: str | None = None
    time_column: str | None = None
    timezone: str | None = None
    decimal: str | None = None
    allow_negative: bool = False

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        _ = self.options
        return self

    @property
    def options(self) -> PriceOptions:
        """The same, as the reader takes them."""
        return PriceOptions(**self.model_dump())


class EngineConfig(_Section):
    """``[engines.chronos2]``: the interpreter that an engine's processes are started with, where it is another."""

    python: Path


class ShareConfig(_Section):
    """``[share]``: where the daemon puts signed releases for trading hosts, with which private key, and how often."""

    to: str | None = None
    key: Path | None = None
    artifacts: bool = True
    every_minutes: Annotated[float, Field(ge=0.1, le=1440)] = 10.0


class SyncConfig(_Section):
    """``[sync]``: where a trading host fetches settings, whose signature it takes, and how old they may be."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_alias=True, validate_by_name=True)

    source: str | None = Field(default=None, alias="from")
    key: str | None = None
    artifacts: str | None = None
    max_age_hours: Annotated[float, Field(gt=0, le=87_600)] = 6.0

    @property
    def max_age_s(self) -> float:
        """The same in seconds."""
        return self.max_age_hours * 3600

    @property
    def public_keys(self) -> str | None:
        """What the variable says, else the file."""
        return os.environ.get(KEY_VARIABLE) or self.key


class Config(BaseSettings):
    """The whole file. ``AUTOTUNE_DAEMON__SCHEDULE`` and the like override what it says."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOTUNE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    daemon: DaemonConfig = DaemonConfig()
    prices: PricesConfig = PricesConfig()
    defaults: SymbolConfig = SymbolConfig()
    symbols: dict[str, SymbolConfig] = {}
    engines: dict[str, EngineConfig] = {}
    share: ShareConfig = ShareConfig()
    sync: SyncConfig = SyncConfig()

    @field_validator("symbols")
    @classmethod
    def _known_symbols(cls, symbols: dict[str, SymbolConfig]) -> dict[str, SymbolConfig]:
        try:
            return {parse_symbol(name): each for name, each in symbols.items()}
        except SymbolError as error:
            raise ValueError(str(error)) from None

    def prices_of(self, symbol: str) -> PriceSource:
        """Where the prices of ``symbol`` lie and how they are read, as far as the file says."""
        data = self.of(symbol).data
        return PriceSource(data=None if data is None else str(data), options=self.prices.options)

    @property
    def pythons(self) -> dict[str, str]:
        """Interpreters of engines that have one of their own."""
        return {name: str(engine.python) for name, engine in self.engines.items()}

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that is named."""
        named = [section.model for section in (self.defaults, *self.symbols.values())]
        several = [(each,) if isinstance(each, str) else each for each in named if each is not None]
        return tuple(dict.fromkeys(model for models in several for model in models))

    def of(self, symbol: str) -> SymbolConfig:
        """What holds for ``symbol``: its own section over ``[defaults]``."""
        own = self.symbols.get(symbol, SymbolConfig()).model_dump(exclude_none=True)
        return SymbolConfig(**self.defaults.model_dump(exclude_none=True) | own)


def price_arguments(source: PriceSource) -> list[str]:
    """A source as options of a command."""
    given = source.options.to_dict()
    flags = ["--allow-negative"] if given.pop("allow_negative", False) else []
    named = ({"data": source.data} if source.data else {}) | given
    return [
        part for name, value in named.items() for part in (f"--{name.replace('_', '-')}", str(value))
    ] + flags


def read_config(path: Path | None) -> Config:
    """The file at ``path``, or the defaults for None, under the variables.

    Relative paths in the file are relative to it. Raises ``UsageError`` with file, field and reason in one line.
    """
    where = "the environment" if path is None else str(path)
    if path is not None and not path.is_file():
        raise UsageError(f"{path}: no such file; `autotune config example` prints one to begin with")
    try:
        return _absolute(_reader(path)(), path)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "file"
        why = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}: {field}: {why}") from None
    except RecursionError:
        raise UsageError(f"{where}: nested too deeply") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}: {' '.join(str(error).split())}") from None


def _reader(path: Path | None) -> type[Config]:
    class Reader(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            if path is None:
                return (env_settings,)
            return env_settings, TomlConfigSettingsSource(settings_cls, toml_file=path)

    return Reader


def _absolute(config: Config, path: Path | None) -> Config:
    if path is None:
        return config
    folder = path.absolute().parent

    def resolved(section: _Section) -> _Section:
        given = {name: getattr(section, name, None) for name in ("watchlist", "workload", "data")}
        return section.model_copy(update={name: folder / value for name, value in given.items() if value})

    symbols = {name: resolved(section) for name, section in config.symbols.items()}
    changed = {"daemon": resolved(config.daemon), "defaults": resolved(config.defaults), "symbols": symbols}
    if config.share.key is not None:
        changed["share"] = config.share.model_copy(update={"key": folder / config.share.key})
    return config.model_copy(update=changed)
