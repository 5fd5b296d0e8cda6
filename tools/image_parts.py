"""Print the size of the image's parts. Runs inside the image, as root."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import Distribution, distributions
from pathlib import Path

SMALLEST_LISTED_BYTES = 40_000_000


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def package_bytes(package: Distribution) -> int:
    """Size of a Python package's files, including the modules that pip compiled."""
    paths = (Path(str(file.locate())) for file in package.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


def folder_bytes(*folders: str) -> int:
    """Size of all files in the folders."""
    total = output("du", "--total", "--apparent-size", "--block-size=1", *folders)
    return int(total.splitlines()[-1].split()[0])


def compiler_bytes() -> int:
    """Size of the C compiler with what was installed only for it; 0 without a compiler."""
    if not shutil.which("gcc"):
        return 0
    needed_only = "APT::AutoRemove::SuggestsImportant=false"
    remove = ("apt-get", "--simulate", "--option", needed_only, "autoremove")
    plan = output(*remove, "gcc", "libc6-dev", "python3-dev")
    packages = re.findall(r"^Remv (\S+)", plan, re.MULTILINE)
    paths = map(Path, set(output("dpkg", "--listfiles", *packages).splitlines()))
    return sum(path.stat().st_size for path in paths if path.is_file() and not path.is_symlink())


sizes = {f"{package.name} {package.version}": package_bytes(package) for package in distributions()}
parts = {name: size for name, size in sizes.items() if size >= SMALLEST_LISTED_BYTES}
parts = dict(sorted(parts.items(), key=lambda part: -part[1]))
parts["other Python packages"] = folder_bytes("/opt/nlijob") - sum(parts.values())
parts["the job"] = folder_bytes("/app")
parts["C compiler for Triton"] = compiler_bytes()
parts["Debian with Python"] = folder_bytes("/usr", "/etc", "/var") - compiler_bytes()
for name, size in parts.items():
    if size:
        print(f"  {size / 10**6:8.1f} MB  {name}")
