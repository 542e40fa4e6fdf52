"""The tree keeps to its own rules: direction of imports, unsafe calls, public names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for path in ROOT.rglob("*.py")
    if not {"tests", "benchmarks", "docs", "build"} & set(path.relative_to(ROOT).parts[:-1])
    and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)


def _module(path: Path) -> list[str]:
    parts = ["cm2", *path.relative_to(ROOT).with_suffix("").parts]
    return parts[:-1] if parts[-1] == "__init__" else parts


def _imports(path: Path) -> Iterator[str]:
    module = _module(path)
    package = module if path.name == "__init__.py" else module[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield stem
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def _within(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


FORBIDDEN = {
    "cm2.cache": ["cm2.extract", "cm2.fuse", "cm2.cli", "cm2.commands", "cm2.demo"],
    "cm2.extract": ["cm2.fuse", "cm2.cli", "cm2.commands", "cm2.demo"],
    "cm2.fuse": [
        # of stage one, encoders alone, which streaming trains, and how a film is decoded
        *(
            f"cm2.extract.{part.stem}"
            for part in (ROOT / "extract").iterdir()
            if part.stem not in ("encoders", "modalities")
        ),
        *(
            f"cm2.extract.modalities.{part.stem}"
            for part in (ROOT / "extract/modalities").glob("*.py")
            if part.stem not in ("__init__", "film")
        ),
        "cm2.cli",
        "cm2.commands",
    ],
    "cm2.fuse.models": ["cm2.fuse.training", "cm2.fuse.evaluation", "cm2.fuse.inference"],
    "cm2.fuse.stream": ["cm2.fuse.training", "cm2.fuse.evaluation", "cm2.fuse.inference"],
    "cm2.fuse.training": ["cm2.fuse.reproduce"],
    "cm2.fuse.evaluation": ["cm2.fuse.training", "cm2.fuse.reproduce"],
    "cm2.fuse.copula": ["cm2.cache", "cm2.extract", "cm2.fuse.models", "cm2.fuse.config"],
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards_only(path: Path) -> None:
    module = ".".join(_module(path))
    for layer, above in FORBIDDEN.items():
        if _within(module, layer):
            upward = [name for name in _imports(path) if _within(name, *above)]
            assert not upward, f"{module} imports {upward}"


UNPICKLES = "extract/encoders/convert.py"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unsafe_is_called(path: Path) -> None:
    unsafe = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "socket", "urllib"}
    unsafe |= {"requests", "http", "ftplib"}
    imported = {name.split(".")[0] for name in _imports(path)}
    assert not imported & unsafe
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        if call == "torch.load" and path.relative_to(ROOT).as_posix() == UNPICKLES:
            assert "weights_only=True" in ast.unparse(node)
            continue
        assert call not in {"eval", "exec", "torch.load", "torch.save", "yaml.load", "os.system"}
        for keyword in node.keywords:
            value = ast.unparse(keyword.value)
            assert (keyword.arg, value) not in {("shell", "True"), ("allow_pickle", "True")}


def test_every_package_is_listed_for_the_wheel() -> None:
    import tomllib

    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    present = {".".join(_module(path)) for path in SOURCES if path.name == "__init__.py"}
    assert listed == present
