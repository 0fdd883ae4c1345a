"""ccxt without the hundred exchanges nobody asked for: the same package, each name of it loaded on first use."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

# Importing ccxt, ccxt.async_support and ccxt.pro runs every exchange they know: over 1 s and 100 MB, for one client.
_PACKAGES = ("ccxt", "ccxt.async_support", "ccxt.pro")
_EXCHANGE = {
    "ccxt": "ccxt.base.exchange",
    "ccxt.async_support": "ccxt.async_support.base.exchange",
    "ccxt.pro": "ccxt.async_support.base.exchange",
}
# What an `__init__` says of its package; Python asks a module for many other such names, and takes no for an answer.
_SAID_OF_ITSELF = ("__version__", "__all__")


class _OnDemand(ModuleType):
    """A package of ccxt that finds a name where its `__init__` would have, and runs that for any other name."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") or name in _SAID_OF_ITSELF:
            found = self._find(name)
            if found is not None:
                return found
            self._load_everything()
            if name in vars(self):
                return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        # An import leaves the submodule in its package; ccxt's packages hold the class of that name instead.
        if isinstance(value, ModuleType):
            value = vars(value).get(name, value)
        super().__setattr__(name, value)

    def _find(self, name: str) -> Any:
        errors = importlib.import_module("ccxt.base.errors")
        if name == "Exchange":
            self.Exchange: Any = importlib.import_module(_EXCHANGE[self.__name__]).Exchange
        elif name in vars(errors):
            vars(self)[name] = vars(errors)[name]
        elif importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            importlib.import_module(f"{self.__name__}.{name}")
        return vars(self).get(name)

    def _load_everything(self) -> None:
        self.__class__ = ModuleType  # type: ignore[assignment]  # from here on an ordinary package
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)


def _prepare(name: str) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _OnDemand
    sys.modules[name] = package
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, package)


# What was imported whole before us is kept: two copies of an error class would be two classes.
for _name in _PACKAGES:
    if _name not in sys.modules:
        _prepare(_name)

import ccxt  # noqa: E402 - prepared above

__all__ = ["ccxt"]
