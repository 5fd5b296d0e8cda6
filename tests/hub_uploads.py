"""What a stand-in hub does with uploads: it makes repositories, takes files, and keeps commits.

Files of the kinds that hubs store apart (weights) come by the Git LFS protocol, the others within
the commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Reply = tuple[int, object]
"""Status and JSON content of an answer."""

_REPO = r"(?P<repo>[^/]+/[^/]+)"
_PREUPLOAD = re.compile(rf"/api/models/{_REPO}/preupload/main")
_COMMIT = re.compile(rf"/api/models/{_REPO}/commit/main")
_BATCH = re.compile(rf"/{_REPO}\.git/info/lfs/objects/batch")
_OBJECT = re.compile(r"/lfs-objects/(?P<oid>[0-9a-f]{64})")
_INFO = re.compile(rf"/api/models/{_REPO}")
_STORED_APART = (".safetensors", ".bin")


@dataclass
class Uploaded:
    """A repository that was made by a client."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    """The message of each commit."""


class Uploads:
    """Repositories by name, for those who send the token."""

    def __init__(self, token: str) -> None:
        self.repositories: dict[str, Uploaded] = {}
        self._token = token
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, url: str
    ) -> Reply | None:
        """The answer to a request; None if it is not about uploads."""
        with self._lock:
            if method == "PUT" and (found := _OBJECT.fullmatch(path)):
                return self._take(found["oid"], body)
            if method == "GET" and (found := _INFO.fullmatch(path)):
                return self._info(found["repo"])
            if method != "POST":
                return None
            return self._answer_to_post(path, headers, body, url)

    def _answer_to_post(
        self, path: str, headers: Mapping[str, str], body: bytes, url: str
    ) -> Reply | None:
        if path == "/api/validate-yaml":
            return 200, {"warnings": [], "errors": []}
        found = next((m for p in (_PREUPLOAD, _COMMIT, _BATCH) if (m := p.fullmatch(path))), None)
        if found is None and path != "/api/repos/create":
            return None
        sent = {name.lower(): value for name, value in headers.items()}.get("authorization")
        if sent != f"Bearer {self._token}":
            return 401, {"error": "Invalid credentials"}
        if found is None:
            return self._create(json.loads(body), url)
        if found.re is _PREUPLOAD:
            return 200, {"files": [_mode(file["path"]) for file in json.loads(body)["files"]]}
        if found.re is _BATCH:
            return self._batch(json.loads(body), url)
        return self._commit(found["repo"], body, url)

    def _create(self, asked: Any, url: str) -> Reply:
        name = f"{asked['organization']}/{asked['name']}"
        self.repositories.setdefault(name, Uploaded(asked.get("visibility") == "private"))
        return 200, {"url": f"{url}/{name}"}

    def _info(self, name: str) -> Reply | None:
        repository = self.repositories.get(name)
        if repository is None:
            return None
        return 200, {"id": name, "private": repository.private, "sha": "0" * 40, "siblings": []}

    def _batch(self, asked: Any, url: str) -> Reply:
        objects = [
            {**one, "actions": {"upload": {"href": f"{url}/lfs-objects/{one['oid']}"}}}
            for one in asked["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def _take(self, oid: str, body: bytes) -> Reply:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "these are other bytes"}
        self._objects[oid] = body
        return 200, {}

    def _commit(self, name: str, body: bytes, url: str) -> Reply:
        repository = self.repositories[name]
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repository.messages.append(value["summary"])
            elif entry["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repository.files[value["path"]] = self._objects[value["oid"]]
        commit = f"{len(repository.messages):040x}"
        return 200, {"commitUrl": f"{url}/{name}/commit/{commit}", "commitOid": commit}


def _mode(path: str) -> dict[str, object]:
    mode = "lfs" if path.endswith(_STORED_APART) else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}
