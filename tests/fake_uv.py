"""Stands in for a Python with uv: a real process that makes environments of fakes.

`fakes.install_fake_uv` makes an executable of it. It is called as `builds/local/uv.py`
calls Python. What it installs is a `fake_esphome` of the version that is asked for.

The lines in `<executable>.script` are done first, as `fake_esphome` describes, each
with its step before it: `venv: `, `install: `, `latest: ` or, when what was installed
is asked for its version, `trial: `. The newest version is in `<executable>.latest`, and
the newest beta in `<executable>.betas`, if there are any.
Each call adds its step as a line to `<executable>.calls`.
"""

import os
import sys

import fake_esphome  # type: ignore[import-not-found] # beside it, as this is a script

_CALLED = {"compile": "latest", "install": "install", "venv": "venv"}
_STEPS = (*_CALLED.values(), "trial")


def _read(path: str) -> list[str]:
    if not os.path.exists(path):  # noqa: PTH110 - pathlib is slow to import
        return []
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - same
        return file.read().splitlines()


def _executable(path: str, *command: str) -> None:
    words = " ".join(f'"{word}"' for word in command)
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - same
        file.write(f'#!/bin/sh\nexec {words} "$0" "$@"\n')
    os.chmod(path, 0o755)  # noqa: PTH101 - same


def _venv(folder: str) -> None:
    fake_esphome._print(f"Creating virtual environment at: {folder}")
    os.makedirs(f"{folder}/bin")  # noqa: PTH103 - same
    os.symlink(sys.executable, f"{folder}/bin/python")  # noqa: PTH211 - same


def _install(python: str, version: str, trial: list[str]) -> None:
    esphome = f"{python.removesuffix('python')}esphome"
    fake_esphome._print("Downloading esphome (7.0MiB)")
    fake_esphome._print(" Downloaded esphome")
    _executable(esphome, sys.executable, "-S", "-E", fake_esphome.__file__)
    with open(f"{esphome}.version", "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write("".join(f"{line}\n" for line in trial))
        file.write(f"print Version: {version}\n")
    fake_esphome._print("Installed 1 package in 1ms")


def main() -> None:
    """Do the step that was called."""
    executable, *arguments = sys.argv[1:]
    words = arguments[arguments.index("--cache-dir") + 2 :]
    step = _CALLED[words[1] if words[0] == "pip" else words[0]]
    fake_esphome._append(f"{executable}.calls", step)
    script: dict[str, list[str]] = {name: [] for name in _STEPS}
    for line in _read(f"{executable}.script"):
        only, _, rest = line.partition(": ")
        script[only].append(rest)
    for line in script[step]:
        verb, _, argument = line.partition(" ")
        fake_esphome._VERBS[verb](*([argument] if argument else []))
    if step == "venv":
        _venv(words[-1])
    elif step == "install":
        version = words[-1].partition("<=")[2]
        _install(words[words.index("--python") + 1], version, script["trial"])
    else:
        betas = _read(f"{executable}.betas") if "allow" in words else []
        (version,) = betas or _read(f"{executable}.latest")
        fake_esphome._print(f"esphome=={version}")


if __name__ == "__main__":
    main()
