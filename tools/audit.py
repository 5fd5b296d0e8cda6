"""Compares the locked versions with the known vulnerabilities of packages (the OSV database).

    python -m tools.audit [FILE ...] [-- options of pip-audit]

Without files: all in requirements/. Ends with 0 if none is known, 1 if one is, and 3 if the
database did not answer for every package: an audit that was not made never counts as passed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DONE, VULNERABLE, NOT_AUDITED = 0, 1, 3
LIMIT_S = 900.0
"""Longest time for a file. Each package is one request."""


def main(arguments: list[str]) -> int:
    """Audit the files, and return the exit code of the worst."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    files = [Path(name) for name in arguments[:split]]
    files = files or sorted((ROOT / "requirements").glob("*.*"))
    return max([audit(file, arguments[split + 1 :]) for file in files], default=NOT_AUDITED)


def audit(file: Path, options: list[str]) -> int:
    """Audit one file, print what was found, and return the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv"]
    command += ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(
            [*command, "--requirement", str(file), *options],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        packages = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return _not_audited(file, f"no end within {LIMIT_S:.0f} s")
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or ["no output"]
        return _not_audited(file, lines[-1])
    return _report(file, packages)


def _report(file: Path, packages: list[dict[str, Any]]) -> int:
    found = [(package, fault) for package in packages for fault in package.get("vulns", [])]
    for package, fault in found:
        fixed = ", ".join(fault.get("fix_versions", [])) or "no version yet"
        version = f"{package['name']} {package['version']}"
        print(f"{file.name}: {version}: {fault['id']}, fixed in {fixed}")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if found:
        return VULNERABLE
    if skipped or not packages:
        return _not_audited(file, f"no answer for {', '.join(skipped) or 'any package'}")
    print(f"{file.name}: {len(packages)} packages, no known vulnerability")
    return DONE


def _not_audited(file: Path, why: str) -> int:
    print(f"{file.name}: NOT AUDITED: {why}", file=sys.stderr)
    return NOT_AUDITED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
