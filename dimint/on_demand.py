"""Package fronts whose names are imported when somebody uses them.

Every process of ours starts by importing, and `from dimint.replay.positions import …` runs the front of `dimint.replay` too:
if that imports all of its names, a lone format function costs a quarter of a second of processor time.
"""

import importlib
import sys
from collections.abc import Callable, Mapping

__all__ = ["names_on_demand"]


def names_on_demand(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """A package's `__getattr__` (PEP 562): `modules` are its modules by name, each with the names in it, separated by spaces."""
    where = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> object:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(where[name]), name)
        setattr(sys.modules[package], name, value)  # the next look finds it at once
        return value

    return get
