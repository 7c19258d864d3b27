"""What is built from the checkout must hold every package, under its public name."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOMES = {
    "keras_blocks": ROOT / "keras_blocks",
    "export": ROOT / "export",
    "serving": ROOT / "serving",
}


def source_packages():
    """The dotted names of all folders that hold an `__init__.py`."""
    for name, home in HOMES.items():
        root = name if name == "keras_blocks" else f"keras_blocks.{name}"
        for marker in home.rglob("__init__.py"):
            inner = marker.parent.relative_to(home).parts
            if name == "keras_blocks" and inner[:1] in {("export",), ("serving",)}:
                continue
            yield ".".join((root, *inner))


def test_every_source_folder_is_a_listed_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(set(source_packages()))


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lowest.txt"])
def test_the_constraints_pin_every_line_and_name_no_address(name):
    for line in (ROOT / name).read_text().splitlines():
        assert "==" in line, line
        assert "://" not in line, line


def test_the_lowest_constraints_are_the_lower_bounds_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    bounds = [*project["dependencies"], *extras["tensorflow"], *extras["serving"]]
    pinned = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    assert {bound.replace(">=", "==") for bound in bounds} <= set(pinned)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist, built from a copy so that the checkout stays clean."""
    copy = tmp_path_factory.mktemp("checkout") / "project"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, tracked):
        source, target = ROOT / name, copy / name
        if not source.is_symlink() and not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        else:
            target.write_bytes(source.read_bytes())
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--outdir",
            str(copy / "dist"),
            str(copy),
        ],
        check=True,
        capture_output=True,
    )
    return copy / "dist"


def test_the_wheel_holds_every_package_under_its_public_name(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    for package in source_packages():
        assert f"{package.replace('.', '/')}/__init__.py" in names
    assert "keras_blocks/py.typed" in names
    assert not any(name.startswith(("export/", "serving/", "tests/")) for name in names)


def test_the_sdist_holds_the_sources_once(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = [name.partition("/")[2] for name in sdist.getnames()]
    assert "export/__init__.py" in names
    assert "keras_blocks/export/__init__.py" not in names


def test_the_wheel_and_the_sdist_hold_the_files_of_the_page(built):
    files = {path.name for path in (ROOT / "serving" / "rest" / "web").iterdir()}
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        assert {f"keras_blocks/serving/rest/web/{name}" for name in files} <= set(wheel.namelist())
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"serving/rest/web/{name}" for name in files} <= names
