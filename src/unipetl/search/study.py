"""The search's memory: an Optuna study, in which every trial says all that there is to know about its point.

Trials of a process that was killed are found again by the directory that they ran in, whose lock says that nobody
else is at work there, and their points are tried again.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unipetl.errors import MissingPackageError, RunError
from unipetl.search.definition import Search

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

DATABASE = "search.db"
#: How connections to that file are made: they wait for each other this many seconds.
CONNECT: dict[str, Any] = {"timeout": 60}
#: What a trial says about itself in the study: who tries it, what of its point is known, and how it ended.
FOLDER, POINT, REFUSED, INTERRUPTED, CONTINUES = "folder", "point", "refused", "interrupted", "continues"


def optuna() -> ModuleType:
    """Return the package optuna.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        module = importlib.import_module("optuna")
    except ImportError as error:
        raise MissingPackageError(
            f"optuna is needed for a search and is not here ({error}). Install it: pip install 'unipetl[search]'"
        ) from error
    module.logging.set_verbosity(module.logging.WARNING)
    return module


def open_study(definition: Search, folder: Path, storage: str | None, *, greater_is_better: bool) -> Study:
    """Return the search's study, made if absent.

    Args:
        definition: the search.
        folder: its directory.
        storage: an Optuna storage's URL; None for an SQLite file in the directory.
        greater_is_better: how to read the task's metric.

    Raises:
        RunError: the storage cannot be opened.
    """
    package = optuna()
    path = folder / DATABASE
    url = storage or f"sqlite:///{path.resolve()}"
    try:
        own = {"connect_args": CONNECT} if storage is None else None
        study: Study = package.create_study(
            storage=url if own is None else package.storages.RDBStorage(url, engine_kwargs=own),
            study_name=f"unipetl {definition.task} {definition.hash()}",
            direction="maximize" if greater_is_better else "minimize",
            load_if_exists=True,
            pruner=_pruner(definition),
        )
    except Exception as error:
        said = f"{type(error).__name__}: {_first(error)}".replace(url, without_password(url))
        raise RunError(f"the storage {without_password(url)!r} cannot be opened: {said}") from error
    study.sampler = _sampler(definition, len(study.trials))
    return study


def without_password(url: str) -> str:
    """Return a storage's URL as it may be shown."""
    scheme, found, rest = url.partition("://")
    who, at, where = rest.rpartition("@")
    name, colon, _ = who.partition(":")
    return f"{scheme}{found}{name}:***{at}{where}" if colon and at else url


def take_up(study: Study, folder: Path) -> None:
    """End the trials that a process that is gone left in this directory, and let their points be tried again."""
    package = optuna()
    states = package.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        if trial.user_attrs.get(FOLDER) == str(folder.resolve()):
            interrupt(study, trial.number)
    known = {trial.user_attrs.get(CONTINUES) for trial in study.trials}
    for trial in study.get_trials(deepcopy=False, states=(states.FAIL,)):
        if trial.user_attrs.get(INTERRUPTED) and trial.number not in known:
            study.enqueue_trial(trial.params, user_attrs={CONTINUES: trial.number})


def interrupt(study: Study, number: int) -> None:
    """End a running trial as interrupted: its point is tried again when the search goes on."""
    trial = next(one for one in study.trials if one.number == number)
    study._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, value=True)
    study.tell(number, state=optuna().trial.TrialState.FAIL)


def _sampler(definition: Search, before: int) -> BaseSampler:
    """Return the sampler; one that goes on draws other numbers than those drawn before."""
    samplers = optuna().samplers
    seed = definition.seed + before
    made: BaseSampler = (
        samplers.RandomSampler(seed) if definition.sampler == "random" else samplers.TPESampler(seed=seed)
    )
    return made


def _pruner(definition: Search) -> BasePruner:
    pruners = optuna().pruners
    made: dict[str, BasePruner] = {
        "median": pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
        "hyperband": pruners.HyperbandPruner(min_resource=1, max_resource="auto", reduction_factor=3),
        "none": pruners.NopPruner(),
    }
    return made[definition.pruner]


def finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that were trained, to their end or not, in their order."""
    return [trial for trial in study.trials if trial.state.is_finished() and counts(trial)]


def counts(trial: FrozenTrial) -> bool:
    """Say whether a trial was trained: it was neither interrupted nor refused before it began, nor known already."""
    return POINT in trial.user_attrs and not {INTERRUPTED, REFUSED} & set(trial.user_attrs)


def _first(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
