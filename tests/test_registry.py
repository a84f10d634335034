import importlib
import itertools
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import safegen
from safegen.errors import SafegenError
from safegen.registry import Registry, Spec, create

NUMBERS = itertools.count()
ENTRY = """
from {package} import REGISTRY

@REGISTRY.register({name!r})
def make():
    return {name!r}
"""
AnyRegistry = Registry[Callable[[], str]]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnyRegistry:
    """A registry over a new package whose modules are ``safety_filter`` and ``_private``."""
    package = f"package_{next(NUMBERS)}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "safety_filter.py").write_text(ENTRY.format(package=package, name="safety-filter"))
    (folder / "_private.py").write_text("raise AssertionError('imported')")
    (folder / "broken.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    made: AnyRegistry = Registry(package, package)
    __import__(package).REGISTRY = made
    return made


def install(site: Path, package: str, group: str, entries: dict[str, str]) -> None:
    """Lay out an installed package with entry points, as pip would."""
    (site / f"{package}.py").write_text("def make():\n    return 'from elsewhere'\n")
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"[safegen.{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


def test_listing_imports_nothing(registry: AnyRegistry) -> None:
    assert registry.names() == ["broken", "safety-filter"]
    assert f"{registry.package}.safety_filter" not in sys.modules
    assert f"{registry.package}.broken" not in sys.modules


def test_getting_imports_one_entry_only(registry: AnyRegistry) -> None:
    assert registry.get("safety-filter")() == "safety-filter"
    assert registry.get("safety-filter") is registry.get("safety-filter")
    assert f"{registry.package}.broken" not in sys.modules
    assert registry.names() == ["broken", "safety-filter"]


def test_an_unknown_name_gets_a_suggestion(registry: AnyRegistry) -> None:
    with pytest.raises(SafegenError, match=r"'safty-filter'.*Did you mean 'safety-filter'\?"):
        registry.get("safty-filter")
    with pytest.raises(SafegenError, match="Known: broken, safety-filter") as caught:
        registry.get("qqq")
    assert "Did you mean" not in str(caught.value)
    with pytest.raises(SafegenError):
        registry.get("_private")


def test_a_name_taken_is_an_error(registry: AnyRegistry) -> None:
    registry.register("own")(lambda: "first")
    with pytest.raises(ValueError, match="'own' is registered already"):
        registry.register("own")(lambda: "second")
    assert registry.get("own")() == "first"


def test_a_module_must_register_its_own_name(registry: AnyRegistry, tmp_path: Path) -> None:
    code = ENTRY.format(package=registry.package, name="other")
    (tmp_path / registry.package / "misnamed.py").write_text(code)
    with pytest.raises(ValueError, match="does not register 'misnamed'"):
        registry.get("misnamed")


def test_another_packages_entry_point_is_found(registry: AnyRegistry, tmp_path: Path) -> None:
    package = f"plugin_{registry.package}"
    install(tmp_path, package, registry.kind, {"plugged": f"{package}:make"})
    assert registry.names() == ["broken", "plugged", "safety-filter"]
    assert package not in sys.modules
    assert registry.get("plugged")() == "from elsewhere"


def test_a_name_given_by_two_packages_is_an_error(registry: AnyRegistry, tmp_path: Path) -> None:
    package = f"plugin_{registry.package}"
    registry.get("safety-filter")
    install(tmp_path, package, registry.kind, {"safety-filter": f"{package}:make"})
    with pytest.raises(SafegenError, match=rf"'safety-filter' .* by {package}:make"):
        registry.get("safety-filter")


def test_the_package_found_twice_on_the_path_is_one(
    registry: AnyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"plugin_{registry.package}"
    install(tmp_path, package, registry.kind, {"plugged": f"{package}:make"})
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "link")
    assert registry.get("plugged")() == "from elsewhere"


def test_a_spec_is_a_name_an_argument_and_options(registry: AnyRegistry) -> None:
    @registry.register("made")
    def make(
        place: str = "here",
        *,
        size: int | None = 1,
        colour: str = "red",
        share: float | None = None,
        sure: bool = False,
        parts: tuple[str, ...] = (),
    ) -> str:
        told = [share] * (share is not None) + [sure] * sure + [*parts]
        return " ".join(map(str, [place, size, colour, *told]))

    @registry.register("around")
    def around(spec: Spec) -> str:
        return f"({spec})"

    assert create(registry, "made", "made:there") == "here 1 red"
    assert create(registry, "made:a:b=c", "made:there", {"size": 2}) == "a:b=c 2 red"
    context = {"colour": "blue", "unknown": 1}
    assert create(registry, "made", "made:there", context=context) == "here 1 blue"
    for spec, expected in (
        ("made:a,size=3", "a 3 red"),
        ("made,size=all,share=0.5,sure=true,parts=x + y", "here None red 0.5 True x y"),
        ("made:a, b=c,d:e,colour=blue", "a, b=c,d:e 1 blue"),
        ("around:made:a,size=3", "(made:a,size=3)"),
    ):
        assert create(registry, spec, "made:there") == expected
    assert create(registry, "made,size=3", "made:there", {"size": 2}) == "here 2 red"
    for spec, options, message in (
        ("made:", {}, "nothing follows the colon; what made needs follows a colon, as in made:th"),
        ("made", {"weight": 1}, "unexpected keyword argument 'weight'"),
        ("made,sise=3", {}, "unknown option 'sise'; did you mean 'size'[?] known: size, colour"),
        ("made,place=x", {}, "unknown option 'place'"),
        ("made,size=3,size=4", {}, "gives size twice"),
        ("made,size=few", {}, "size must be a whole number, or all, not 'few'"),
        ("made,share=nan", {}, "share must be a finite number, not 'nan'"),
        ("made,sure=yes", {}, "sure must be true or false, not 'yes'"),
        ("made,parts=x+", {}, "parts must be one or more joined by [+], not 'x[+]'"),
        ("safety-filter,x=1", {}, "unknown option 'x'; known: none"),
        ("around,x=1", {}, "missing a required argument: 'spec'"),
        ("safety-filter:x", {}, "too many positional arguments"),
    ):
        with pytest.raises(SafegenError, match=message):
            create(registry, spec, "made:there", options)


def built_in() -> list[Registry[Any]]:
    """The registries that safegen's packages define."""
    found = []
    for info in pkgutil.iter_modules(safegen.__path__, "safegen."):
        if info.ispkg:
            values = vars(importlib.import_module(info.name)).values()
            found += [value for value in values if isinstance(value, Registry)]
    return found


def test_every_built_in_module_registers_its_name() -> None:
    registries = built_in()
    assert "detectors" in {registry.kind for registry in registries}
    for registry in registries:
        assert registry.names()
        for name in registry.names():
            assert registry.get(name) is not None
