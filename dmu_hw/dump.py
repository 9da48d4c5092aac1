"""Plain values → YAML that the strict loader reads as they were."""

from __future__ import annotations

import re
from typing import Any

import yaml

from dmu_hw.files import MAX_NUMBER


def dump_yaml(value: dict[str, Any]) -> str:
    """What JSON could say, in the order in which it is given. Numbers too small for a file are 0: nobody can tell."""
    return yaml.dump(
        _storable(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _storable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_storable(inner) for inner in value]
    return 0.0 if isinstance(value, float) and abs(value) * MAX_NUMBER < 1 else value


class _Dumper(yaml.SafeDumper):
    """Without aliases, which the loader refuses."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver(  # a text that the loader would take for a number is put in quotes
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
