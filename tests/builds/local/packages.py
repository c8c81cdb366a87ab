"""A package index in a folder, with small packages that pass for ESPHome."""

from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
import zipfile


def answer(version: str) -> str:
    """Return the code of an ESPHome that tells a version."""
    return f"def main():\n    print('Version: {version}')\n"


class Index:
    """A folder as PEP 503 describes the answers of an index."""

    def __init__(self, folder: Path) -> None:
        """Begin without packages."""
        self._folder = folder
        self._links: dict[str, list[str]] = {}

    @property
    def url(self) -> str:
        """Return the address of the index."""
        return self._folder.as_uri()

    def add(
        self,
        version: str,
        *requires: str,
        name: str = "esphome",
        code: str | None = None,
        attributes: str = "",
    ) -> None:
        """Add a package whose command runs the code; ESPHome's tells the version."""
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        wheel = folder / f"{name}-{version}-py3-none-any.whl"
        _write(wheel, name, version, requires, code or answer(version))
        checksum = sha256(wheel.read_bytes()).hexdigest()
        link = f'<a href="{wheel.name}#sha256={checksum}" {attributes}>{wheel.name}</a>'
        links = self._links.setdefault(name, [])
        links.append(link)
        page = "\n".join(("<!DOCTYPE html><html><body>", *links, "</body></html>"))
        (folder / "index.html").write_text(page)


def _write(
    wheel: Path, name: str, version: str, requires: tuple[str, ...], code: str
) -> None:
    """Write a package with one command."""
    info = f"{name}-{version}.dist-info"
    dependencies = "".join(f"Requires-Dist: {other}\n" for other in requires)
    files = {
        f"{name}/__init__.py": "",
        f"{name}/__main__.py": code,
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{dependencies}"
        ),
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
        f"{info}/entry_points.txt": (
            f"[console_scripts]\n{name} = {name}.__main__:main\n"
        ),
    }
    record = "".join(
        f"{path},sha256={_digest(content)},{len(content)}\n"
        for path, content in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)


def _digest(content: str) -> str:
    """Return a checksum as a package lists it."""
    return urlsafe_b64encode(sha256(content.encode()).digest()).rstrip(b"=").decode()
