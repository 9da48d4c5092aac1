"""A name in a YAML file → the one class that it stands for."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType

from dmu_hw.errors import InputError, Problem

_LONGEST = 60
_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+")


def names(package: str) -> tuple[str, ...]:
    """All plug-ins that a package holds."""
    found = [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    return tuple(sorted(name for name in found if not name.startswith("_")))


def load_class(package: str, name: str, attribute: str, *, where: str, folder: Path) -> type:
    """The class `attribute` of the plug-in `name`: a module of the package, a dotted path, or a .py file
    beside the YAML, which stands in `folder`."""
    try:
        module = _module(package, name, where=where, folder=folder)
    except (ImportError, SyntaxError) as error:
        raise InputError([Problem(where, f"{_shown(name)} cannot be loaded: {error}")]) from error
    found = getattr(module, attribute, None)
    if not isinstance(found, type):
        raise InputError([Problem(where, f"{_shown(name)} has no {attribute}; it has: {_classes(module)}")])
    return found


def _shown(name: str) -> str:
    """Short enough for a line, whoever wrote it."""
    return repr(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}...")


def _classes(module: ModuleType) -> str:
    """The public classes that a module defines, without those that it only imports."""
    own = (key for key, value in vars(module).items() if isinstance(value, type) and _is_own(value, module))
    return ", ".join(sorted(key for key in own if not key.startswith("_"))) or "no class"


def _is_own(value: type, module: ModuleType) -> bool:
    return f"{value.__module__}.".startswith(f"{module.__name__}.")


def _module(package: str, name: str, *, where: str, folder: Path) -> ModuleType:
    if name.endswith(".py"):
        return _from_file(folder / name, where=where)
    allowed = names(package)
    if name in allowed:
        return importlib.import_module(f"{package}.{name}")
    if _DOTTED.fullmatch(name):
        return importlib.import_module(name)
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    choice = f"{', '.join(allowed)}, a dotted path, or a .py file beside the YAML"
    raise InputError([Problem(where, f"there is no {_shown(name)}{hint} allowed: {choice}")])


def _from_file(path: Path, *, where: str) -> ModuleType:
    """A file is loaded once: all who name it share its classes and what it holds."""
    if not path.is_file():
        raise InputError([Problem(where, f"there is no file {path}")])
    path = path.resolve()
    name = f"dmu_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
