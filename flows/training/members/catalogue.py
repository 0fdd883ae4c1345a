"""Which members there are; a member's library is imported only when it is asked to train."""

from __future__ import annotations

import importlib

from feature_store.errors import BadInputError
from flows.training.members.base import MemberTrainer

# Trees before nets: what is quick to fail should fail first.
MEMBERS = ("xgboost", "lightgbm", "nhits", "patchtst")


def trainer(name: str) -> MemberTrainer:
    """
    Return what fits a member.

    Torch and neuralforecast take seconds and half a gigabyte to import, which no other step should pay for.

    Raises:
        BadInputError: There is no such member.
    """
    if name not in MEMBERS:
        raise BadInputError(f"Unknown member {name!r}; choose from {', '.join(MEMBERS)}")
    module = importlib.import_module(f"flows.training.members.{name}")
    found: MemberTrainer = getattr(module, f"fit_{name}")
    return found
