"""The state of a training in one safetensors file: nested dicts and lists of tensors and plain values, never code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import write_whole


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the file whole or not at all."""
    tensors: dict[str, Tensor] = {}
    tree = _planted(state, tensors)
    write_whole(path, save(tensors, metadata={"tree": json.dumps(tree)}))


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` was given."""
    try:
        with safe_open(path, framework="pt") as file:
            tree = json.loads(file.metadata()["tree"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping, though it has keys
        state: dict[str, Any] = _picked(tree, tensors)
    except OSError as error:
        raise InputError([Problem(str(path), f"cannot be read: {error.strerror or error}")]) from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError([Problem(str(path), f"is no sound checkpoint: {error}")]) from None
    return state


def _planted(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON of a state; its tensors are put aside under numbers. Dicts become pairs: JSON has no whole-number keys."""
    if isinstance(value, Tensor):
        key = str(len(tensors))
        # a copy, since safetensors refuses tensors that share their memory
        tensors[key] = value.detach().cpu().clone().contiguous()
        return {"tensor": key}
    if isinstance(value, dict):
        return {"dict": [[key, _planted(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_planted(inner, tensors) for inner in value]}
    return {"value": value}


def _picked(tree: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _picked(inner, tensors) for key, inner in content}
    if kind == "list":
        return [_picked(inner, tensors) for inner in content]
    return content
