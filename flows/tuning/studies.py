"""Where trials are kept, and who may do the next one: a journal file, or a database that several machines share."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, get_args

import optuna
import psutil
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.pool import NullPool

from feature_store.clock import utc_now
from feature_store.errors import BadInputError
from inference.models.manifest import TimeWindow

Aim = Literal["net", "net-and-drawdown"]
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,60}")
_OWNER, _SURPLUS, _DIED, _ASKED, _LOOKED, _CANDLES = "owner", "surplus", "died", "asked", "looked/", "candles"
_TRIES = 5
_TO_SIGN_S = 60.0
"""How long a trial may be without its owner's name before it counts as abandoned."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    A study by name, in a folder of journals or in the database at an address.

    Attributes:
        name: Small letters, digits, dots and dashes.
        folder: Where journals lie; a study is one file there.
        address: SQLAlchemy URL, such as `postgresql+psycopg://user@host/tuning`; None for a journal.
        aim: "net" alone, searched by TPE with pruning, or net return against drawdown, evolved by NSGA-II.
        seed: Of the sampler; one process with one seed makes the same choices again.

    Raises:
        BadInputError: The name could leave the folder, or is empty.
    """

    name: str
    folder: Path
    address: str | None = None
    aim: Aim = "net"
    seed: int = 7

    def __post_init__(self) -> None:
        """Refuse names that are no plain names."""
        if not _NAME.fullmatch(self.name):
            raise BadInputError(f"A study's name is made of small letters, digits, dots and dashes, was {self.name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candles:
    """
    The candles of a study, which its first run settles: scores on newer ones mean something else.

    Attributes:
        end_ms: Up to when they open (exclusive), in milliseconds since 1970, UTC.
        symbols: Of which symbols they are.
    """

    end_ms: int
    symbols: tuple[str, ...]


class _KernelLock(JournalFileOpenLock):
    """A lock that the kernel takes back from a process that dies; Optuna's own outlives it by half a minute."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._held: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        held = self._path.open("ab")
        fcntl.flock(held, fcntl.LOCK_EX)
        self._held = held
        return True

    def release(self) -> None:
        """Give it back."""
        if self._held is not None:
            self._held.close()
            self._held = None


def parse_place(name: str, aim: str, folder: Path, address: str | None) -> Place:
    """
    Return a study by what people write.

    Raises:
        BadInputError: The name is no plain name, or there is no such aim.
    """
    for known in get_args(Aim):
        if aim == known:
            return Place(name=name, folder=folder, address=address, aim=known)
    raise BadInputError(f"A tuning aims at {' or '.join(get_args(Aim))}, was asked for {aim!r}")


def open_study(place: Place, worker: int = 0) -> optuna.Study:
    """
    Open a study, or make it.

    Raises:
        BadInputError: The database does not answer, or the study was begun with another aim.
    """
    single = place.aim == "net"
    sampler = (
        optuna.samplers.TPESampler(seed=place.seed + worker, constant_liar=True, n_startup_trials=8)
        if single
        else optuna.samplers.NSGAIISampler(seed=place.seed + worker, population_size=16)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=_storage(place),
            study_name=place.name,
            directions=["maximize"] if single else ["maximize", "minimize"],
            sampler=sampler,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=6, n_warmup_steps=0),
            load_if_exists=True,
        )
    if len(study.directions) != (1 if single else 2):
        raise BadInputError(f"Study {place.name} was begun with another aim; choose another name, or that aim")
    return study


def keep_to(study: optuna.Study, place: Place, asked: dict[str, Any]) -> None:
    """
    Note what a study searches when it begins, and hold it to that: scores of other searches mean something else.

    Raises:
        BadInputError: It was begun with another search.
    """
    told = study.user_attrs.get(_ASKED)
    if told is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_ASKED, asked)
    elif told != asked:
        raise _begun_otherwise(place, [name for name in asked if told is None or told.get(name) != asked[name]])


def candles_of(study: optuna.Study, place: Place, market: dict[str, Any], newest_ms: int) -> Candles | None:
    """
    Return the candles that a study was begun with, None where it was not begun yet.

    Args:
        study: The study.
        place: Its place.
        market: What is asked for now, some of what `keep_to` holds a study to.
        newest_ms: When the newest candle that is stored here closed.

    Raises:
        BadInputError: It was begun with another market, or does not say with which candles, or they are not here.
    """
    told = study.user_attrs.get(_ASKED)
    if differ := [name for name in market if told is not None and told.get(name) != market[name]]:
        raise _begun_otherwise(place, differ)
    noted = study.user_attrs.get(_CANDLES)
    if noted is None:
        if study.get_trials(deepcopy=False):
            raise BadInputError(
                f"Study {place.name} does not say up to when its candles are, as those of earlier versions, and newer "
                "ones would be scored beside them; choose another --study"
            )
        return None
    found = Candles(end_ms=noted["end_ms"], symbols=tuple(noted["symbols"]))
    if found.end_ms > newest_ms:
        raise BadInputError(
            f"Study {place.name} was begun with candles up to {_moment(found.end_ms)} UTC, and those stored here end "
            f"at {_moment(newest_ms)} UTC; run 'qtctl ingest' first, or choose another --study"
        )
    return found


def keep_to_candles(study: optuna.Study, place: Place, candles: Candles) -> None:
    """
    Note with which candles a study begins, and hold it to them.

    Raises:
        BadInputError: It was begun with others, be it that some are no longer good enough, or at the same moment.
    """
    noted = study.user_attrs.get(_CANDLES)
    if noted is None:
        study.set_user_attr(_CANDLES, {"end_ms": candles.end_ms, "symbols": list(candles.symbols)})
    elif noted["end_ms"] != candles.end_ms:
        raise _begun_otherwise(place, ["candles"])
    elif differ := sorted(set(noted["symbols"]) ^ set(candles.symbols)):
        raise _begun_otherwise(place, [f"candles of {one}" for one in differ])


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _begun_otherwise(place: Place, differ: list[str]) -> BadInputError:
    return BadInputError(
        f"Study {place.name} was begun with other {' and '.join(differ)}, and its scores cannot be compared with "
        "these; choose another --study, or what it was begun with"
    )


def note_look(study: optuna.Study, window: TimeWindow) -> None:
    """Note which candles a study is about to look at; each stretch has its own key, so no two machines lose one."""
    study.set_user_attr(f"{_LOOKED}{window.start_ms}-{window.end_ms}", [window.start_ms, window.end_ms])


def looked_at(study: optuna.Study) -> TimeWindow:
    """
    Return the stretch of all candles that a study ever looked at, or that settings it began from were chosen by.

    Raises:
        BadInputError: It notes none.
    """
    noted = [value for key, value in study.user_attrs.items() if key.startswith(_LOOKED)]
    if not noted:
        raise BadInputError(f"Study {study.study_name} does not say which candles it looked at; choose another --study")
    return TimeWindow(start_ms=min(start for start, _ in noted), end_ms=max(end for _, end in noted))


def _storage(place: Place) -> BaseStorage:
    if place.address is None:
        place.folder.mkdir(parents=True, exist_ok=True)
        path = place.folder / f"{place.name}.journal"
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_KernelLock(path.with_suffix(".lock"))))
    for left in range(_TRIES - 1, -1, -1):
        try:
            # Few and long trials: a connection that waits in a pool between them is only one more that can break.
            return RDBStorage(place.address, engine_kwargs={"poolclass": NullPool})
        except Exception as error:  # noqa: BLE001 - drivers raise what they like
            # Another process that makes the same tables at the same moment is done a second later.
            if left and isinstance(error, IntegrityError | ProgrammingError):
                time.sleep(1.0)
                continue
            # SQLAlchemy's own message begins with the address, which may hold a password.
            raise BadInputError(
                f"The database of QT_TUNING_STORAGE cannot be used ({type(error).__name__}): check that it runs, and "
                "the address, such as postgresql+psycopg://user@host/tuning"
            ) from None
    raise AssertionError("unreachable")


def claim(study: optuna.Study, wanted: int) -> Trial | None:
    """
    Begin the next trial, or return None where enough are done or under way.

    Storages number trials in one order that all processes see, and a trial counts unless it failed: the first
    `wanted` that count are those to do, and whoever began a later one takes it back. So no two processes need to talk,
    on one machine or many, and exactly as many are done as were asked for.
    """
    if _counting(study) >= wanted:
        return None
    trial = study.ask()
    trial.set_user_attr(_OWNER, _this_process())
    before = sum(_counts(one) for one in study.get_trials(deepcopy=False) if one.number < trial.number)
    if before >= wanted:
        trial.set_user_attr(_SURPLUS, True)
        study.tell(trial, state=TrialState.FAIL)
        return None
    return trial


def bury(study: optuna.Study) -> int:
    """
    Fail the trials of processes that died on this machine, and line up their choices to be tried again.

    Returns how many there were. Trials of other machines are left alone: whoever runs there buries them.
    """
    died = [one for one in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) if _is_dead(one)]
    for one in died:
        study.tell(one.number, state=TrialState.FAIL)
        study.enqueue_trial(one.params, user_attrs={_DIED: one.number})
    return len(died)


def tried(study: optuna.Study) -> list[FrozenTrial]:
    """Return the choices that were looked at, by number: all but those that nobody ever evaluated."""
    trials = study.get_trials(deepcopy=False)
    return [one for one in trials if one.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def best(study: optuna.Study) -> FrozenTrial | None:
    """Return the trial to take: of the best net, and of those on the front where drawdown counts too."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        return None
    candidates = study.best_trials if len(study.directions) > 1 else done
    return max(candidates, key=lambda one: (one.values[0], -one.number))


def _counting(study: optuna.Study) -> int:
    return sum(_counts(one) for one in study.get_trials(deepcopy=False))


def _counts(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def _is_dead(trial: FrozenTrial) -> bool:
    owner: Any = trial.user_attrs.get(_OWNER)
    if not isinstance(owner, str):
        # Died between beginning the trial and signing it; where several machines share a study that may also be a
        # process that is just about to sign, so it is left alone there for a while.
        return trial.datetime_start is None or utc_now().timestamp() - trial.datetime_start.timestamp() > _TO_SIGN_S
    host, pid, created = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" != created
    except psutil.NoSuchProcess:
        return True
