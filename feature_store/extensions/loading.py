"""An extension set from a Python file, or from a folder of them."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from importlib.abc import SourceLoader
from typing import TYPE_CHECKING

from feature_store.errors import BadInputError
from feature_store.extensions.definition import ExtensionFeature, ExtensionSet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

_LARGEST = 1_000_000


class _Source(SourceLoader):
    """Runs the bytes that the digest was made of: no second look at the file, and no compiled leftovers beside it."""

    def __init__(self, path: str, content: bytes) -> None:
        self._path, self._content = path, content

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002 - importlib's signature
        return self._path

    def get_data(self, path: str) -> bytes:
        if path != self._path:
            raise FileNotFoundError(path)
        return self._content


def load_extensions(path: Path) -> ExtensionSet:
    """
    Run a file (or every `*.py` of a folder that does not begin with `_`, by name) and return what it declares.

    This runs the code in it: it is the operator's own, named by a setting, and never comes with a model.

    Raises:
        BadInputError: There is no such file, it cannot be run, or what it declares cannot be.
    """
    files = list(_files(path))
    digest = hashlib.sha256()
    features: list[ExtensionFeature] = []
    for file in files:
        content = _content(file)
        digest.update(f"{file.name}:{len(content)}:".encode() + content)
        module = _run(file, content)
        features += [one for one in vars(module).values() if isinstance(one, ExtensionFeature)]
    # Declared in one file and imported into no other: each file stands for itself.
    return ExtensionSet(path.name, tuple(features), digest.hexdigest())


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        found = sorted(one for one in path.glob("*.py") if not one.name.startswith("_"))
        if not found:
            raise BadInputError(f"{path} holds no Python file with features; name a file or folder in QT_EXTENSIONS")
        yield from found
        return
    if not path.is_file() or path.suffix != ".py":
        raise BadInputError(f"{path} is neither a Python file nor a folder; name one in QT_EXTENSIONS")
    yield path


def _content(file: Path) -> bytes:
    content = file.read_bytes()
    if len(content) > _LARGEST:
        raise BadInputError(f"{file} has {len(content):,} bytes; features are written in fewer than {_LARGEST:,}")
    return content


def _run(file: Path, content: bytes) -> ModuleType:
    name = f"quantum_extension_{hashlib.sha256(bytes(file.resolve()) + content).hexdigest()[:16]}"
    loader = _Source(str(file), content)
    spec = importlib.util.spec_from_loader(name, loader, origin=str(file))
    if spec is None:  # pragma: no cover - importlib gives one for every loader
        raise BadInputError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up by name while they are made.
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BadInputError as error:
        raise BadInputError(f"{file}: {error}") from error
    except (Exception, SystemExit) as error:
        raise BadInputError(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    finally:
        sys.modules.pop(name, None)
    return module
