"""Wheel and sdist in empty environments of each Python, and each extra alone.

    python -m tests.support.install_matrix [PYTHON ...]

It needs uv and a package index. An environment without an extra has to name it in one line, one
with it must not. Prints packages, megabytes and how long `import lakelog` takes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.support.tree import ROOT

RECIPE = """
import lakelog, pathlib, sys
pathlib.Path("r.toml").write_text(
    'name = "r"\\n[select]\\nsql = "SELECT * FROM events"\\n[shape]\\nkind = "text"\\n'
    'text = "message"\\n' + sys.argv[1].replace("|", chr(10))
)
from lakelog.cli import main
sys.argv = ["lakelog", "train", "export", "r.toml", "-o", "set"]
main()
"""
LAKE = "import lakelog; lake = lakelog.open('lake'); "
USES: dict[str, list[str]] = {
    "redact": ["-c", RECIPE, "[redact]|kinds = ['email']|deep = true"],
    "language": ["-c", RECIPE, "[filter]|languages = ['en']|drop = ['language']"],
    "tiktoken": ["-c", RECIPE, "[budget]|tokens = 9|tokenizer = 'tiktoken:o200k_base'"],
    "tokenizers": ["-c", RECIPE, "[budget]|tokens = 9|tokenizer = 'tokenizers:t.json'"],
    "polars": ["-c", LAKE + "lake.sql('SELECT 1').pl()"],
    "dask": ["-c", LAKE + "lake.to_dask()"],
    "ray": ["-c", LAKE + "lake.to_ray()"],
    "spark": ["-c", LAKE + "lake.to_spark(None)"],
    "iceberg": ["publish", "iceberg", "a.b", "--catalog", "sqlite"],
    "otel": ["-c", "import lakelog; lakelog.LakeSpanExporter('lake')"],
    "feeds": [
        "-c",
        "import lakelog; lakelog.SimpleLogProcessor(feeds={'a': 'http://127.0.0.1:1/'}).run()",
    ],
    "redis": ["consume", "redis://127.0.0.1:1/0/events", "--once"],
    "postgres": ["sync", "postgresql://127.0.0.1:1/x", "--once"],
    "kafka": ["consume", "kafka://127.0.0.1:1/x", "--once"],
    "mysql": ["sync", "mysql://u@127.0.0.1:1/x", "--once"],
    "sign": ["key", "generate", "k"],
    "encrypt": ["--lake", "sealed", "init", "--encrypt"],
    "s3": ["remote", "add", "far", "s3://bucket/lake"],
    "search": ["search", "x", "--rank"],
    "analysis": ["anomalies", "--plot", "a.png"],
    "jupyter": ["-c", LAKE + "lake.sql('SELECT 1 AS a').plot()"],
    "server": ["demo", "--serve", "--sample", "missing"],
    "mcp": ["mcp"],
}
"""How each extra is used: arguments of `lakelog`, or a program after `-c`."""
IMPORTED = {
    "eventsourcing": "lakelog.eventsourcing",
    "sqlalchemy": "lakelog.sqlalchemy_dialect",
    "sqlite": "adbc_driver_sqlite",
}
"""Extras whose library the user's own program imports."""
TIME = """
import subprocess, sys, time
def run(code):
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began
run("import lakelog")
pairs = [(run("import lakelog"), run("pass")) for _ in range(9)]
print(round(1000 * (min(a for a, _ in pairs) - min(b for _, b in pairs))))
"""


@dataclass
class Environment:
    """A new environment, with `asked` installed."""

    place: Path
    python: str
    asked: str

    def make(self) -> None:
        """Install. Raises CalledProcessError."""
        constraint = {"UV_CONSTRAINT": str(ROOT / "constraints.txt")}
        for words in (
            ["venv", "--quiet", "--python", self.python, self.place],
            ["pip", "install", "--quiet", "--python", self.place / "bin/python", self.asked],
            ["pip", "check", "--quiet", "--python", self.place / "bin/python"],
        ):
            subprocess.run(["uv", *words], check=True, env=clean() | constraint)

    def run(self, words: list[str], cwd: Path) -> str:
        """What a use prints, with its errors."""
        program = ["python"] if words[0] == "-c" else ["lakelog"]
        try:
            done = subprocess.run(
                [self.place / "bin" / program[0], *words],
                cwd=cwd,
                env=clean() | {"LAKELOG_KEY": "00" * 32},
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=60,
            )
        except subprocess.TimeoutExpired:
            return "it waits for a server"
        return done.stdout + done.stderr

    @property
    def size(self) -> str:
        """Packages, and megabytes."""
        folders = list(self.place.glob("lib/python*/site-packages/*.dist-info"))
        files = (p for p in self.place.rglob("*") if p.is_file() and not p.is_symlink())
        return f"{len(folders)} packages, {sum(p.stat().st_size for p in files) >> 20} MB"


def clean() -> dict[str, str]:
    """The environment without this one's packages."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def works(environment: Environment, cwd: Path) -> None:
    """Append and ask. Raises AssertionError."""
    stored = environment.run(["append", "type=A", "message=hello"], cwd)
    assert "stored 1 event" in stored, stored
    answer = environment.run(["sql", "SELECT count(*) AS n FROM events", "--json"], cwd)
    assert '"n":1' in answer.replace(" ", ""), answer


def main(pythons: list[str]) -> int:
    """Run the matrix; return how many cells are wrong."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    extras = [name for name in extras if name not in ("dev", "readers", "docs")]
    assert set(extras) == USES.keys() | IMPORTED.keys(), "an extra has no use here"
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="lakelog-matrix-") as scratch:
        place = Path(scratch)
        subprocess.run(["uv", "build", "--quiet", "--out-dir", place, ROOT], check=True)
        (wheel,), (sdist,) = place.glob("*.whl"), place.glob("*.tar.gz")
        print(f"wheel {wheel.stat().st_size >> 10} kB, sdist {sdist.stat().st_size >> 10} kB")

        def environment(python: str, asked: str) -> tuple[Environment, Path]:
            shutil.rmtree(place / "env", ignore_errors=True)
            shutil.rmtree(place / "home", ignore_errors=True)
            (place / "home").mkdir()
            made = Environment(place / "env", python, asked)
            made.make()
            works(made, place / "home")
            return made, place / "home"

        for python in pythons:
            for package in (wheel, sdist):
                made, home = environment(python, str(package))
                ms = made.run(["-c", TIME], home).strip()
                suffix = package.suffix.removeprefix(".")
                print(f"{python} {suffix}: works; {made.size}; import {ms} ms", flush=True)
        for extra, words in USES.items():
            shown = made.run(words, home)
            *before, last = shown.strip().splitlines() or [""]
            if f"'lakelog[{extra}]'" not in last or (before and words[0] != "-c"):
                wrong += 1
                print(f"without {extra}: {shown[-300:]}", flush=True)
        for extra in extras:
            made, home = environment(pythons[0], f"lakelog[{extra}] @ {wheel.as_uri()}")
            words = USES.get(extra) or ["-c", f"import {IMPORTED[extra]}"]
            shown = made.run(words, home)
            is_missing = re.search(r"pip install 'lakelog|ModuleNotFoundError", shown)
            wrong += bool(is_missing)
            verdict = f"MISSING {shown[-300:]}" if is_missing else "works"
            print(f"[{extra}]: {verdict}; {made.size}", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [sys.executable]))
