"""What the environment says to flows: venue, series, registry and home."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import msgspec
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_store.errors import BadInputError
from feature_store.json_text import UNREADABLE
from flows.training.verdict import ModeName
from inference.models.manifest import EnsembleMode, Weighting

if TYPE_CHECKING:
    from feature_store.kinds.store import KindStore
    from feature_store.lake import CandleLake

REPOSITORY = Path(__file__).resolve().parents[1]
TimeframeName = Literal["1m", "5m", "15m", "1h", "4h", "1d"]
TrainingSize = Literal["full", "quick", "tiny"]
LabelName = Literal["forward", "net", "barrier"]
DeviceName = Literal["cpu", "gpu"]
_HEADS = ("quantile", "direction")
TrainerName = Literal["sequential", "processes", "ray"]
FOLLOW_UNIVERSE = "universe"
"""What QT_SYMBOLS says to follow the universe instead of a list."""
VenueName = Literal["sandbox", "binanceusdm", "binance", "bitfinex"]


class _Service(msgspec.Struct, frozen=True):
    url: str | None = None


class _StackRecord(msgspec.Struct, frozen=True):
    services: dict[str, _Service] = {}


class FlowSettings(BaseSettings):
    """
    The environment of a flow run, read once where a flow or a command starts.

    Addresses that the environment leaves out are looked up in the stack's own record, QUANTUM_HOME/stack.json.
    """

    model_config = SettingsConfigDict(env_prefix="QT_", populate_by_name=True, extra="ignore", frozen=True)

    home: Path = Field(default=Path("var"), validation_alias="QUANTUM_HOME")
    lake_setting: str | None = Field(default=None, validation_alias="QT_LAKE")
    # How real the money is that the worker trades: what a promotion must show depends on it.
    mode: ModeName = "sandbox"
    venue: VenueName = "sandbox"
    venue_url: str | None = None
    api_key: SecretStr = SecretStr("sandbox-key")
    api_secret: SecretStr = SecretStr("sandbox-secret")
    mlflow_url: str | None = None
    # What the worker's journal is called among others whose heads MLflow keeps; by default its machine and path.
    journal_name: str | None = None
    symbols: str = "all"
    timeframe: TimeframeName = "5m"
    # Longer candles to derive from minutes, where minutes are ingested.
    derive: str = ""
    days: int = Field(default=30, ge=1, le=1500)
    size: TrainingSize = "full"
    # Which members vote, by name and comma; the four of TrainingConfig where nothing is said.
    members: str = ""
    weighting: Weighting | None = None
    ensemble_mode: EnsembleMode | None = None
    # What is answered beside the expected return: quantile, direction, or both with a comma.
    heads: str = ""
    device: DeviceName = "cpu"
    # A label of one's own for the candidates that are registered, to find them by: exp-vol-adj.
    tag: str = Field(default="", max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$|^$")
    concurrency: int = Field(default=4, ge=1, le=32)
    # Hours of wall-clock time between two retrainings that drift asks for.
    drift_cooldown_hours: int = Field(default=12, ge=0, le=24 * 90)
    # A TOML file of universe rules; the defaults without it.
    universe: Path | None = None
    # A TOML file with the rules that the worker trades by, for judging a candidate by what they would make of it.
    policy: Path | None = None
    # Where tuning keeps its trials: an SQLAlchemy URL that several machines share, else a journal in the home.
    tuning_storage: str | None = None
    # Name of the study whose best choice trainings take.
    tuned: str | None = None
    # Where members are trained, on how many processes at once, and each on how many threads.
    trainer: TrainerName = "sequential"
    train_processes: int = Field(default=2, ge=1, le=64)
    train_threads: int = Field(default=1, ge=1, le=64)
    # Address of a running Ray cluster; without it one is started for the time of a training.
    ray_address: str | None = None
    # Deep members are fitted anew by each n-th job; the jobs between take over the last ones.
    deep_every: int = Field(default=6, ge=1, le=1000)
    # How often a retraining is due, how long one waits for another, and for how long a crashed one can go on.
    retrain_hours: float = Field(default=4.0, gt=0, le=24 * 366)
    retrain_patience: float = Field(default=3600.0, ge=0)
    # Days of venue time for which journals of challengers are kept once all of them is in MLflow; 0 keeps them all.
    shadow_keep_days: int = Field(default=90, ge=0, le=36_500)
    # Where a browser finds MLflow, if not where flows do (behind a proxy, in a compose network).
    mlflow_public_url: str | None = None

    @field_validator("home")
    @classmethod
    def _resolved(cls, home: Path) -> Path:
        return home.expanduser().resolve()

    @field_validator("members")
    @classmethod
    def _known_members(cls, text: str) -> str:
        from flows.training.members.catalogue import parse_members  # noqa: PLC0415 - --help stays quick

        if text.strip():
            try:
                parse_members(text)
            except BadInputError as error:
                raise ValueError(str(error)) from None
        return text

    @field_validator("heads")
    @classmethod
    def _known_heads(cls, text: str) -> str:
        unknown = [one for one in _parts(text) if one not in _HEADS]
        if unknown or len(set(_parts(text))) != len(_parts(text)):
            raise ValueError(f"Heads are {' and '.join(_HEADS)}, each once")
        return text

    @classmethod
    def of(cls, **chosen: object) -> Self:
        """
        Read the environment; what a flow was told (anything but None) wins over it.

        Raises:
            BadInputError: A value is not usable.
        """
        try:
            return cls(**{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            problems = "; ".join(
                f"{_variable(problem['loc'])}: {problem['msg']}, was {problem['input']!r}" for problem in error.errors()
            )
            raise BadInputError(f"Unusable settings: {problems}") from None

    @property
    def lake(self) -> Path:
        """Folder of the lake, and of what is noted beside candles that lie elsewhere; the store owns its layout."""
        from feature_store.lake_address import lake_folder  # noqa: PLC0415 - --help stays quick

        return lake_folder(self.lake_setting, self.home)

    def candle_lake(self) -> CandleLake:
        """
        Return the candle lake, wherever QT_LAKE puts it.

        Raises:
            BadInputError: QT_LAKE is neither a folder nor an address.
            LakeUnavailableError: The object store cannot be used; the message says why.
        """
        from feature_store.lake_address import open_lake  # noqa: PLC0415 - --help stays quick

        return open_lake(self.lake_setting, self.home)

    def kind_store(self) -> KindStore:
        """
        Return the store of market data beside candles, wherever QT_LAKE puts it.

        Raises:
            BadInputError: QT_LAKE is neither a folder nor an address.
            LakeUnavailableError: The object store cannot be used; the message says why.
        """
        from feature_store.kinds.store import KindStore  # noqa: PLC0415 - --help stays quick

        lake = self.candle_lake()
        return KindStore(lake.root, lake.place)

    @property
    def features(self) -> Path:
        """Folder of materialised features."""
        return self.home / "features"

    @property
    def universes(self) -> Path:
        """Folder of the weekly universes."""
        return self.home / "universe"

    @property
    def journal(self) -> Path:
        """The worker's record of this home."""
        return self.home / "journal" / "journal.jsonl"

    @property
    def shadow_journal(self) -> Path:
        """Folder of what challengers said of live candles, a file a day."""
        return self.home / "shadow" / "journal"

    @property
    def jobs(self) -> Path:
        """Folder of retraining jobs: their table, and what those that are not over have made so far."""
        return self.home / "jobs"

    @property
    def candidates(self) -> Path:
        """Folder in which bundles are built before they are logged."""
        return self.home / "candidates"

    @property
    def verdicts(self) -> Path:
        """Folder in which the worker of this home finds what was decided of models, to journal it."""
        return self.home / "verdicts"

    @property
    def bundles(self) -> Path:
        """Folder of the bundles that the worker of this home verified."""
        return self.home / "bundles"

    @property
    def gates(self) -> Path:
        """The bounds that a candidate must hold."""
        return REPOSITORY / "mlflow" / "gates.yaml"

    def address(self, service: str) -> str | None:
        """Return the URL of a service of the running stack, or None where none is recorded."""
        try:
            record = msgspec.json.decode((self.home / "stack.json").read_bytes(), type=_StackRecord)
        except (OSError, *UNREADABLE):
            return None
        found = record.services.get(service, _Service()).url
        return found.rstrip("/") if found else None

    @property
    def trades_other_candles(self) -> bool:
        """Whether the worker decides on other candles than flows read: a test network's, which no lake holds."""
        return self.mode == "testnet"

    @property
    def venue_address(self) -> str | None:
        """URL of the sandbox exchange, None for a venue that ccxt knows the address of."""
        if self.venue != "sandbox":
            return None
        return self.venue_url or self.address("sandbox")

    @property
    def registry_address(self) -> str | None:
        """URL of the MLflow server."""
        return self.mlflow_url or self.address("mlflow")

    @property
    def registry_page(self) -> str | None:
        """URL under which a browser reaches MLflow."""
        return self.mlflow_public_url or self.registry_address

    @property
    def follows_universe(self) -> bool:
        """Whether the symbols are those that were in the universe at each moment."""
        return self.symbols.strip() == FOLLOW_UNIVERSE

    def chosen_heads(self) -> tuple[str, ...]:
        """Return what is to be answered beside the expected return."""
        return _parts(self.heads)

    def chosen_symbols(self) -> tuple[str, ...] | None:
        """Return the symbols to work on, or None for all that the venue, the lake or the universe has."""
        return None if self.follows_universe else parse_symbols(self.symbols)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.split(",") if one.strip())


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "environment"
    return name.upper() if name.startswith("QUANTUM") else f"QT_{name.upper()}"


def parse_moment(text: str) -> datetime:
    """
    Read a date or moment (ISO 8601), of UTC where it does not say; a date is the moment at which it begins.

    Raises:
        BadInputError: It is neither.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadInputError(
            f"A moment is a date or a time of UTC, such as 2026-03-01 or 2026-03-01T12:00, was {text!r}"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def parse_symbols(text: str) -> tuple[str, ...] | None:
    """Read a comma list of unified names; `all` is None."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    return None if not names or names == ("all",) else names
