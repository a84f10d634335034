"""The project's own files agree with the program and with each other."""

import importlib.metadata
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

import safegen
from safegen.cli import app
from safegen.version import __version__

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LOCKED = (ROOT / "requirements.lock").read_text().splitlines()
GPU_LIBRARIES = ("nvidia", "cuda", "triton")


def fenced(language: str) -> list[str]:
    """The documents' fenced blocks in one language, with continued lines joined."""
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", " ") for block in blocks]


def commands(program: str) -> list[str]:
    """The lines of the documents that run a program."""
    lines = (line.strip() for block in fenced("bash") for line in block.splitlines())
    return [line for line in lines if line.startswith(f"{program} ")]


def tracked_texts() -> dict[str, str]:
    """Name and content of every text file under version control."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    texts = {}
    for name in filter(None, listed.stdout.decode().split("\0")):
        data = (ROOT / name).read_bytes() if (ROOT / name).exists() else b"\0"
        if b"\0" not in data:
            texts[name] = data.decode()
    return texts


def installed_dependencies() -> set[str]:
    """Names of all that the development environment needs, from the installed metadata."""
    names: set[str] = set()
    waiting = [Requirement("safegen[dev]")]
    while waiting:
        requirement = waiting.pop()
        for line in importlib.metadata.requires(requirement.name) or []:
            needed = Requirement(line)
            extras = requirement.extras or {""}
            if needed.marker and not any(needed.marker.evaluate({"extra": e}) for e in extras):
                continue
            name = canonicalize_name(needed.name)
            if name not in names or needed.extras:
                names.add(name)
                waiting.append(needed)
    return names - {"safegen"}


def test_no_module_needs_what_windows_lacks() -> None:
    lacking = re.compile(r"^(import|from) (fcntl|grp|pwd|resource|termios)\b", re.MULTILINE)
    sources = (ROOT / "src").rglob("*.py")
    assert [file.name for file in sources if lacking.search(file.read_text())] == []


def test_the_version_has_one_source() -> None:
    assert safegen.__version__ == __version__
    assert f'version: "{__version__}"' in (ROOT / "CITATION.cff").read_text()
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    try:
        assert importlib.metadata.version("safegen") == __version__
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("safegen is not installed here")


@cache
def help_of(*path: str) -> str:
    """What a command's ``--help`` prints, on a wide terminal."""
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert shown.exit_code == 0, shown.output
    return shown.output


@pytest.mark.parametrize("line", commands("safegen"))
def test_the_documents_commands_exist(line: str) -> None:
    words = line.split()[1:]
    names = [word for word in words[:2] if re.fullmatch("[a-z]+", word)]
    path = names if names[0] == "lab" else names[:1]
    text = help_of(*path)
    for option in re.findall(r"--[a-z-]+", line):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{path}: {option}"


def test_the_documents_python_exists() -> None:
    blocks = fenced("python")
    called = [name for block in blocks for name in re.findall(r"safegen\.(\w+)\(", block)]
    imports = [line for block in blocks for line in re.findall(r"^from safegen.*", block, re.M)]
    assert {"apply", "remove"} <= set(called) <= set(safegen.__all__)
    assert imports
    exec("\n".join(imports), {})


def test_the_documents_make_targets_exist() -> None:
    targets = [word for line in commands("make") for word in line.split("#")[0].split()[1:]]
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test", "check"} <= set(targets)
    assert [name for name in targets if f"\n{name}:" not in makefile] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_documents_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    links = [link for link in links if not link.endswith(".html")]  # made and checked by mkdocs
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_site_leads_to_every_document() -> None:
    listed = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(listed)


def test_the_lock_pins_one_version_of_each() -> None:
    names = [re.fullmatch(r"([a-z0-9-]+)==[0-9][\w.]*", line) for line in LOCKED]
    assert None not in names, LOCKED
    pinned = [match[1] for match in names if match]
    assert len(pinned) == len(set(pinned))
    assert [name for name in pinned if name.startswith(GPU_LIBRARIES)] == []


def test_the_lock_pins_all_that_is_needed() -> None:
    try:
        needed = installed_dependencies()
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("safegen[dev] is not installed here")
    pinned = {line.split("==")[0] for line in LOCKED}
    assert {"torch", "pytest", "nudenet", "onnx"} <= needed
    assert {name for name in needed - pinned if not name.startswith(GPU_LIBRARIES)} == set()


def test_no_file_names_a_place_on_one_machine() -> None:
    places = ["/" + name + "/" for name in ("work", "root", "opt", "scratch")]
    places += ["find" + "-links", "index" + "-url"]
    found = [
        (name, place) for name, text in tracked_texts().items() for place in places if place in text
    ]
    assert found == []
