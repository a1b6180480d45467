"""The architecture as tables: who may import whom, which library has which adapter, what a pure module may touch."""

import ast
import functools
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("producers", "consumers", "overlord", "node", "webapp")


def _find_sources() -> list[Path]:
    found = []
    for folder in ("dimint", *PACKAGES):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT).parts
            if not (inside[0] == "dimint" and inside[1] in PACKAGES):  # the symlinks lead to the real folders
                found.append(path)
    return found


SOURCES = _find_sources()

ADAPTERS = {
    "apsw": (
        "dimint/log/embedded",
        "consumers/tables",
        "consumers/reading",
        "producers/spool",
        "dimint/replay/sqlite",
        "dimint/replay/history",
    ),
    "click": ("dimint/cli",),
    "kafka": ("dimint/log/kafka",),
    "kazoo": ("dimint/registry/zookeeper",),
    "lmdb": ("node/store",),
    "pynvml": ("producers/gpu",),
    "sanic": ("webapp/",),
    "tomllib": ("dimint/load",),
    "zmq": ("dimint/transport", "dimint/curve"),
}
"""Each outside library is imported by exactly one adapter: library → where its importers stand."""

MAY_IMPORT = {
    "dimint": (),
    "producers": (),
    "consumers": (),
    "overlord": (),
    "node": (),
    "webapp": ("consumers",),
}
"""Package → sibling packages that it may import; everybody imports dimint."""

COMPOSITION = ("dimint/cli", "dimint/up", "dimint/replay/")
"""Modules of the core that may reach the siblings, and only inside functions."""

PURE_LIBRARIES = frozenset(
    """
    _md5 array base64 binascii bisect collections concurrent contextlib copy dataclasses datetime difflib enum fnmatch functools
    hashlib heapq html ipaddress itertools json math operator pathlib re shlex statistics string struct textwrap types typing
    unicodedata urllib zlib zoneinfo html5tagger lz4 msgpack msgspec xxhash
    """.split()
)
"""What a module marked [S] may import beside other modules marked [S]."""

MAX_LINES = 400


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def _imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted module, whether at the top level of the file) of every import; `from a import b` counts as a and a.b."""
    found = []
    tree = _tree(path)
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)} has a relative import"
            assert node.module is not None
            found.append((node.module, id(node) in top))
            found += [(f"{node.module}.{alias.name}", id(node) in top) for alias in node.names]
    return found


@functools.cache
def _module_path(module: str) -> Path | None:
    """The file of one of our modules, by its dotted name."""
    parts = module.split(".")
    if parts[0] != "dimint":
        return None
    inside = parts[1:] if parts[1:2] and parts[1] in PACKAGES else parts
    for candidate in (ROOT.joinpath(*inside).with_suffix(".py"), ROOT.joinpath(*inside) / "__init__.py"):
        if inside and candidate.exists():
            return candidate
    return None


@functools.cache
def _is_pure(path: Path) -> bool:
    return "[S]" in (ast.get_docstring(_tree(path)) or "")


def test_modules_say_what_they_are_and_hold_one_idea() -> None:
    """Every module has a docstring, and none is so long that it must hold two ideas."""
    assert not [_name(path) for path in SOURCES if not ast.get_docstring(_tree(path))]
    assert not [_name(path) for path in SOURCES if len(path.read_text().splitlines()) > MAX_LINES]


def test_outside_libraries_have_one_adapter() -> None:
    """A library is imported only where its adapter stands."""
    wrong = []
    for path in SOURCES:
        for module, _ in _imports(path):
            places = ADAPTERS.get(module.split(".")[0])
            if places is not None and not _name(path).startswith(places):
                wrong.append(f"{_name(path)}: {module} belongs into {places}")
    assert not wrong


def test_packages_keep_to_the_import_directions() -> None:
    """Siblings meet through the core, never by importing each other, and never as top-level packages."""
    wrong = []
    for path in SOURCES:
        here = path.relative_to(ROOT).parts[0]
        for module, at_top in _imports(path):
            parts = module.split(".")
            if parts[0] in PACKAGES:
                wrong.append(f"{_name(path)}: import dimint.{module}")
            if parts[0] != "dimint" or parts[1:2] == [here] or parts[1:2] == [] or parts[1] not in PACKAGES:
                continue
            if here == "dimint" and _name(path).startswith(COMPOSITION):
                if at_top:
                    wrong.append(f"{_name(path)}: {module} is imported inside the function that needs it")
            elif parts[1] not in MAY_IMPORT[here]:
                wrong.append(f"{_name(path)}: {here} may not import {parts[1]}")
    assert not wrong


def test_pure_modules_touch_nothing() -> None:
    """A module marked [S] imports pure libraries and other modules marked [S] only."""
    wrong = []
    for path in filter(_is_pure, SOURCES):
        for module, _ in _imports(path):
            ours = _module_path(module)
            seeded = module in ("random", "random.Random")  # a generator of one's own, never the shared one
            if ours is not None:
                if ours.name != "__init__.py" and not _is_pure(ours):
                    wrong.append(f"{_name(path)}: {module} is not marked [S]")
            elif not module.startswith("dimint") and not seeded and module.split(".")[0] not in PURE_LIBRARIES:
                wrong.append(f"{_name(path)}: {module} is not pure")
    assert not wrong


def test_package_fronts_only_re_export() -> None:
    """An `__init__` holds a docstring, imports, `__all__` and constants, no code."""
    for path in SOURCES:
        if path.name == "__init__.py":
            for node in _tree(path).body:
                if isinstance(node, ast.If):  # names on demand: what they are, for type checkers, and where they are found
                    assert ast.unparse(node.test) == "TYPE_CHECKING", _name(path)
                else:
                    assert isinstance(node, (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign)), _name(path)


@pytest.mark.parametrize("package", ["dimint.client", "dimint.replay"])
def test_names_on_demand_are_those_that_type_checkers_see(package: str) -> None:
    """What a front gives when asked is what it declares, from the module that it says."""
    front = importlib.import_module(package)
    assert front.__file__ is not None
    declared = {
        alias.name: node.module
        for node in ast.walk(_tree(Path(front.__file__)))
        if isinstance(node, ast.ImportFrom) and node.module not in ("typing", "dimint.on_demand")
        for alias in node.names
    }
    assert sorted(front.__all__) == sorted(declared)
    for name, module in declared.items():
        assert getattr(front, name) is getattr(importlib.import_module(str(module)), name)
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        front.Nonsense  # noqa: B018  looking at it is what is tested


def test_the_project_speaks_of_itself_alone() -> None:
    """No leftovers of unfinished work in sources."""
    for path in SOURCES:
        assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text()), _name(path)
