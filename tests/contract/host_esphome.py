"""Stands in for `esphome` where builds travel between servers.

ESPHome Device Builder sends no build of the `host` platform from one server to another
(`controllers/remote_build/artifact_platforms`). So what the real ESPHome built for it
is made to look like an ESP8266's, and back where it is to be uploaded. A configuration
with a script is compiled by `tests.fake_esphome`.

Called with the real ESPHome, the fake one and the arguments of either.
"""

import json
import os
from pathlib import Path
import shutil
import subprocess
import sys


def _metadata(file: Path) -> Path:
    """Return where ESPHome keeps what it knows of a configuration's last build."""
    data = Path(os.environ.get("ESPHOME_DATA_DIR") or file.parent / ".esphome")
    return data / "storage" / f"{file.name}.json"


def _disguise(metadata: Path) -> None:
    """Add what a build of an ESP8266 has."""
    build = json.loads(metadata.read_text())
    firmware = Path(build["build_path"], ".pioenvs", build["name"], "firmware.bin")
    shutil.copy(firmware.with_name("program"), firmware)
    Path(build["build_path"], "platformio.ini").touch()
    description = metadata.parents[1] / "idedata" / f"{build['name']}.json"
    description.parent.mkdir(exist_ok=True)
    description.write_text(json.dumps({"prog_path": str(firmware)}))
    build |= {"esp_platform": "ESP8266", "firmware_bin_path": str(firmware)}
    metadata.write_text(json.dumps(build))


def _reveal(metadata: Path) -> None:
    """Put the program where ESPHome looks for it."""
    firmware = Path(json.loads(metadata.read_text())["firmware_bin_path"])
    if firmware.name == "firmware.bin":
        shutil.copy(firmware, firmware.with_name("program"))
        firmware.with_name("program").chmod(0o755)


def main() -> None:
    """Do what ESPHome would do."""
    real, fake, *arguments = sys.argv[1:]
    file = next((Path(word) for word in arguments if word.endswith(".yaml")), None)
    compiles = "compile" in arguments and "--only-generate" not in arguments
    if compiles and file is not None and "#! " in file.read_text():
        os.execv(fake, [fake, *arguments])
    if "upload" in arguments and file is not None:
        _reveal(_metadata(file))
    code = subprocess.call([real, *arguments])
    if compiles and file is not None and code == 0:
        _disguise(_metadata(file))
    sys.exit(code)


if __name__ == "__main__":
    main()
