"""A name in a YAML file → the one class that it stands for."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType

from dmu_hw.errors import InputError, Problem

_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
_DOTTED = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$")


def names(package: str) -> tuple[str, ...]:
    """All plug-ins that a package holds."""
    found = importlib.import_module(package)
    return tuple(sorted(module.name for module in pkgutil.iter_modules(found.__path__) if not module.name.startswith("_")))


def load_class(package: str, name: str, attribute: str, *, where: str, folder: Path) -> type:
    """The class `attribute` of the plug-in `name`: a module of the package, a dotted path, or a .py file beside the YAML."""
    module = _module(package, name, where=where, folder=folder)
    found = getattr(module, attribute, None)
    if not isinstance(found, type):
        roles = sorted(key for key, value in vars(module).items() if isinstance(value, type) and key[0].isupper())
        raise InputError([Problem(where, f"{name!r} has no {attribute}; it has: {', '.join(roles) or 'nothing'}")])
    return found


def _module(package: str, name: str, *, where: str, folder: Path) -> ModuleType:
    if name.endswith(".py"):
        return _from_file(folder / name, where=where)
    if _NAME.match(name):
        if name not in names(package):
            raise InputError([Problem(where, f"there is no {name!r}; allowed: {', '.join(names(package))}")])
        return importlib.import_module(f"{package}.{name}")
    if not _DOTTED.match(name):
        raise InputError([Problem(where, f"{name!r} is no name, dotted path or .py file")])
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError([Problem(where, f"{name!r} cannot be imported: {error}")]) from None


def _from_file(path: Path, *, where: str) -> ModuleType:
    if not path.is_file():
        raise InputError([Problem(where, f"there is no file {path}")])
    name = f"dmu_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError([Problem(where, f"{path} is not a Python file")])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
