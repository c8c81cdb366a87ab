"""Which ESPHome is run, and what of our environment it sees."""

import os
from pathlib import Path
import time

import pytest

from custom_components.esphome_builds.builds.local import environment as module
from custom_components.esphome_builds.builds.local.environment import (
    VERSION_SECONDS,
    EsphomeFailedError,
    EsphomeMissingError,
    build_environment,
    compile_slots,
    esphome_version,
    find_esphome,
    limit_compilers,
)

from ...fakes import FAKE_VERSION, fake_calls, fake_version, install_fake

_FOLDERS = {"data_dir": Path("/cache/data"), "tools_dir": Path("/cache/tools")}

_ALLOWED = {
    "ALL_PROXY": "socks5://proxy",
    "CCACHE_DIR": "/ccache",
    "CURL_CA_BUNDLE": "/ca",
    "ESPHOME_VERBOSE": "true",
    "GIT_SSL_CAINFO": "/ca",
    "HOME": "/root",
    "HTTPS_PROXY": "http://proxy",
    "HTTP_PROXY": "http://proxy",
    "IDF_GITHUB_ASSETS": "mirror",
    "LANG": "de_DE.UTF-8",
    "LANGUAGE": "de",
    "LC_ALL": "C.UTF-8",
    "NO_PROXY": "localhost",
    "PATH": "/usr/bin",
    "PLATFORMIO_BUILD_CACHE_DIR": "/pio",
    "REQUESTS_CA_BUNDLE": "/ca",
    "SSL_CERT_DIR": "/certs",
    "SSL_CERT_FILE": "/ca",
    "TMPDIR": "/tmp",
    "TZ": "Europe/Berlin",
    "http_proxy": "http://proxy",
    "no_proxy": "localhost",
}
_OURS = {
    "CLICOLOR_FORCE": "1",
    "ESPHOME_DATA_DIR": "/cache/data",
    "ESPHOME_ESP_IDF_PREFIX": "/cache/tools/idf",
    "FORCE_COLOR": "1",
    "PLATFORMIO_CORE_DIR": "/cache/tools/platformio",
    "PLATFORMIO_FORCE_ANSI": "true",
    "PYTHONIOENCODING": "utf-8",
    "PYTHONUNBUFFERED": "1",
}


def test_allowed() -> None:
    """What a build needs it gets: paths, locale, proxies, certificates, its options."""
    assert build_environment(_ALLOWED, **_FOLDERS) == _ALLOWED | _OURS


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "CCACHE_REMOTE_PASSWORD",
        "DB_PASSWORD",
        "ESPHOME_DASHBOARD_PASSWORD",
        "ESPHOME_DASHBOARD_USERNAME",
        "ESPHOME_REMOTE_TOKEN",
        "GITHUB_TOKEN",
        "HASSIO_TOKEN",
        "HASS_SERVER",
        "LD_PRELOAD",
        "PASSWORD",
        "PLATFORMIO_AUTH_TOKEN",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "S6_LOGGING",
        "SSH_AUTH_SOCK",
        "SUPERVISOR",
        "SUPERVISOR_TOKEN",
        "USERNAME",
        "UV_EXTRA_INDEX_URL",
        "VIRTUAL_ENV",
        "XESPHOME_VERBOSE",
        "esphome_verbose",
        "hassio_token",
    ],
)
def test_not_allowed(name: str) -> None:
    """Nothing else reaches the code of whoever wrote an external component."""
    assert build_environment({name: "x"}, **_FOLDERS) == _OURS


def test_own_places_for_tools_are_kept() -> None:
    """Who has tool chains elsewhere goes on using them; the data stays ours."""
    source = {
        "ESPHOME_DATA_DIR": "/elsewhere",
        "ESPHOME_ESP_IDF_PREFIX": "/mine/idf",
        "FORCE_COLOR": "0",
        "PLATFORMIO_CORE_DIR": "/mine/pio",
    }

    result = build_environment(source, **_FOLDERS)

    assert result == _OURS | {
        "ESPHOME_ESP_IDF_PREFIX": "/mine/idf",
        "PLATFORMIO_CORE_DIR": "/mine/pio",
    }


class TestFind:
    """Where ESPHome is."""

    def test_by_path(self, fake: Path) -> None:
        """The path of an executable is what was given."""
        assert find_esphome(str(fake)) == fake

    def test_on_search_path(self, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An empty path means the one on the search path."""
        monkeypatch.setenv("PATH", str(fake.parent))

        assert find_esphome("") == fake

    def test_below_home(self, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tilde is the home folder."""
        monkeypatch.setenv("HOME", str(fake.parent))

        assert find_esphome("~/esphome") == fake

    @pytest.mark.parametrize("name", ["none", "~nobody-of-that-name/esphome", "."])
    def test_missing(self, fake: Path, name: str) -> None:
        """Where there is none, the error names the place."""
        name = name if name.startswith("~") else str(fake.parent / name)
        with pytest.raises(EsphomeMissingError, match=name):
            find_esphome(name)

    def test_missing_on_search_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same for the search path."""
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(EsphomeMissingError, match="search path"):
            find_esphome("")

    def test_not_executable(self, fake: Path) -> None:
        """A file that cannot be executed is none."""
        fake.chmod(0o644)
        with pytest.raises(EsphomeMissingError):
            find_esphome(str(fake))


class TestVersion:
    """What an executable says of itself."""

    async def ask(self, executable: Path) -> str:
        """Ask for the version."""
        return await esphome_version(executable, {"PATH": os.environ["PATH"]})

    async def test_version(self, fake: Path) -> None:
        """ESPHome tells its version."""
        assert await self.ask(fake) == FAKE_VERSION
        assert fake_calls(fake) == [["version"]]

    @pytest.mark.parametrize("version", ["2026.11.0b2", "2027.1.0-dev", "2026.10.12"])
    async def test_other_versions(self, fake: Path, version: str) -> None:
        """Beta and development versions are versions; noise around is none."""
        fake_version(fake, "complain some warning", f"print Version: {version}")

        assert await self.ask(fake) == version

    @pytest.mark.parametrize(
        "script",
        [
            ["exit 0"],
            ["print garbage"],
            ["rubbish 100000"],
            ["print Version: unknown"],
            ["print My Version: 2026.10.0"],
            [f"print Version: {FAKE_VERSION}", "exit 1"],
            [f"print Version: {FAKE_VERSION}", "signal SEGV"],
            ["flood 100000", f"print Version: {FAKE_VERSION}"],
            ["close"],
        ],
        ids=" ".join,
    )
    async def test_other_answers(self, fake: Path, script: list[str]) -> None:
        """What does not answer as ESPHome does is not taken for it."""
        fake_version(fake, *script)
        with pytest.raises(EsphomeFailedError, match="did not answer as"):
            await self.ask(fake)

    @pytest.mark.parametrize("end", ["sleep inf", "redraws inf"])
    async def test_no_end(
        self, fake: Path, end: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that does not come to an end is stopped, whatever it prints."""
        assert VERSION_SECONDS == 30
        monkeypatch.setattr(module, "VERSION_SECONDS", 0.5)
        fake_version(fake, f"print Version: {FAKE_VERSION}", end)
        started = time.monotonic()
        with pytest.raises(EsphomeFailedError, match=r"within 0\.5 seconds"):
            await self.ask(fake)
        assert time.monotonic() - started < 4

    async def test_not_started(self, fake: Path, tmp_path: Path) -> None:
        """One that the system does not start is told, with the reason."""
        with pytest.raises(EsphomeFailedError, match="No such file"):
            await self.ask(tmp_path / "gone" / "esphome")
        fake.write_text("#!/does/not/exist\n")
        with pytest.raises(EsphomeFailedError):
            await self.ask(fake)

    async def test_wrong_architecture(self, tmp_path: Path) -> None:
        """A file that is no program of this machine fails as others do."""
        executable = install_fake(tmp_path)
        executable.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(200))

        with pytest.raises(EsphomeFailedError):
            await self.ask(executable)


@pytest.mark.parametrize(
    ("cores", "gibibytes", "slots"),
    [
        (1, 64, 1),
        (2, 2, 1),
        (2, 4, 2),
        (4, 1, 1),
        (4, 64, 2),
        (8, 64, 2),
        (16, 64, 4),
        (64, 6, 3),
        (128, 512, 4),
    ],
)
def test_compile_slots(
    cores: int, gibibytes: int, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two where there are cores for them, more with many cores and much memory."""
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": gibibytes * 1024**3 // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "process_cpu_count", lambda: cores)
    assert compile_slots() == slots


def test_limit_compilers() -> None:
    """A build is told how many compilers to start, unless the user has said it."""
    name = "ESPHOME_DEFAULT_COMPILE_PROCESS_LIMIT"

    assert limit_compilers({"HOME": "/"}, 3) == {"HOME": "/", name: "3"}
    assert limit_compilers({name: "7"}, 3) == {name: "7"}
