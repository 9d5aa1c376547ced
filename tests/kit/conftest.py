"""An environment as a stranger has it, and an installed plugin whose parts can be spoilt one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stillhouse.plugins.manager import Manager
from stillhouse.plugins.records import PluginRecord
from stillhouse.scaffold import KINDS, Names, write_plugin

ROOT = Path(__file__).parents[2]


@dataclass
class Stranger:
    """A virtual environment of somebody who knows the package index only."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    def run(self, *command: str, cwd: Path, fails: bool = False) -> str:
        """Output of a command of the environment; its status is checked."""
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "STILLHOUSE_DATA")}
        environment |= {
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}",
            "STILLHOUSE_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert bool(done.returncode) == fails, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def install(self, *what: str, cwd: Path) -> None:
        # The dependencies are there, and the backend too: nothing is fetched.
        self.run("python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", *what, cwd=cwd)

    def build(self, source: Path, wheels: Path) -> Path:
        """The wheel of a source folder."""
        before = set(wheels.glob("*.whl"))
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels)]
        self.run("python", "-m", "pip", "wheel", *options, str(source), cwd=wheels)
        (made,) = set(wheels.glob("*.whl")) - before
        return made


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """An environment with the wheel of the core. torch and the other dependencies are linked from the environment of
    the tests, since installing them anew would take gigabytes and minutes; whatever is ours is left out."""
    folder = tmp_path_factory.mktemp("stranger")
    venv.create(folder / "venv", symlinks=True)
    shared = folder / "shared"
    shared.mkdir()
    for each in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "stillhouse" not in each.name and each.suffix != ".pth":
            (shared / each.name).symlink_to(each)
    site = folder / "venv" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "shared.pth").write_text(f"{shared}\n")
    made = Stranger(folder)
    wheels = folder / "wheels"
    wheels.mkdir()
    made.install(str(made.build(ROOT / "core", wheels)), cwd=folder)
    return made


NAMES = Names("proof")
PACKAGE = NAMES.package


@dataclass
class Distribution:
    """An editable install, made by hand: quicker than pip, and its parts can be spoilt one by one."""

    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @classmethod
    def install(cls, folder: Path, patch: pytest.MonkeyPatch) -> Distribution:
        made = cls(folder)
        write_plugin(NAMES, made.source, KINDS)
        made.write_metadata()
        patch.syspath_prepend(str(made.source / "src"))
        patch.syspath_prepend(str(folder / "site"))
        patch.delenv("STILLHOUSE_DATA", raising=False)
        forget()
        return made

    def write_metadata(self) -> None:
        """What pip writes from pyproject.toml."""
        project = tomllib.loads((self.source / "pyproject.toml").read_text())["project"]
        info = self.folder / "site" / f"{PACKAGE}-{project['version']}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
        lines += [f"Requires-Dist: {each}" for each in project["dependencies"]]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        entries = project["entry-points"]["stillhouse.plugins"].items()
        (info / "entry_points.txt").write_text("[stillhouse.plugins]\n" + "".join(f"{k} = {v}\n" for k, v in entries))
        (info / "direct_url.json").write_text(json.dumps({"url": self.source.as_uri(), "dir_info": {"editable": True}}))

    def change(self, file: str, *pairs: tuple[str, str]) -> None:
        """Replace text in a file of the source; a file that is missing gets the second text of the only pair."""
        path = self.source / file
        if not path.exists():
            ((_, content),) = pairs
            path.write_text(content)
            return
        text = path.read_text()
        for old, new in pairs:
            assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
            text = text.replace(old, new)
        path.write_text(text)

    def load(self) -> tuple[Manager, PluginRecord]:
        """A manager with the core and this plugin."""
        forget()
        manager = Manager(path=[str(self.folder / "site")])
        (record,) = manager.plugin(NAMES.plugin)
        return manager, record


def forget() -> None:
    """Let the next import read the package anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Distribution]:
    """The plugin ``proof``, with a component of every kind, as ``stillhouse plugins new`` writes it."""
    yield Distribution.install(tmp_path, monkeypatch)
    forget()
