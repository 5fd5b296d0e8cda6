"""A stand-in hub on loopback, so that tests go through the real hub clients.

`HubServer` serves folders as model and data set repositories, each under the commits it is given;
`write_phi_repository` and `write_snli_repository` make small folders to serve. The clients read
`HF_ENDPOINT` and `HF_HOME` when they are imported: start them as processes of their own, with
`client_environment`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_uploads import Uploads

Commits = Mapping[str, Path]
"""The folder of each commit (40 hex digits) of a repository."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)"
    r"(?:/(?P<call>revision|tree|paths-info)/(?P<revision>[^/]+)(?:/(?P<path>.+))?)?"
)
_RESOLVE = re.compile(
    r"/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)
_RANGE = re.compile(r"bytes=(?P<first>\d*)-(?P<last>\d*)")
_LARGE_FILES = {".safetensors", ".bin", ".parquet"}
_PROXY_VARIABLES = {"http_proxy", "https_proxy", "all_proxy"}


class Exchange(NamedTuple):
    """One request and the status it was answered with; `path` is as sent, less the query."""

    method: str
    path: str
    status: int


@dataclass
class Answer:
    """What to send back; the body is `body`, or `length` bytes of `file` from `start`."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: Path | None = None
    start: int = 0
    length: int = 0
    misbehave: Misbehaviour | None = None

    def content(self) -> bytes:
        """The bytes of the body."""
        if self.file is None:
            return self.body
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.length)


Misbehaviour = Callable[[BaseHTTPRequestHandler, Answer, threading.Event], None]
"""Sends something in place of the answer it is given; the event is set when the hub is closed."""


class HubError(Exception):
    """A request that a hub refuses; the clients tell the cases apart by the code."""

    def __init__(self, code: str, message: str, commit: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.commit = commit

    def answer(self) -> Answer:
        """The refusal as clients expect it."""
        headers = {"X-Error-Code": self.code, "X-Error-Message": self.message}
        if self.commit is not None:
            # Clients note a missing file in their cache only if they learn of which commit.
            headers["X-Repo-Commit"] = self.commit
        return _json_answer({"error": self.message}, 404, headers)


@dataclass
class _PlannedFailure:
    """How many more requests to fail, which, and how."""

    left: int
    failure: int | Misbehaviour
    path_part: str
    method: str


class HubServer:
    """Serves folders as hub repositories on a free port of 127.0.0.1 while entered.

    Only the commits given are known: any other revision, `main` too, is answered with
    RevisionNotFound, unless `main` names the commit that a repository's `main` stands for.
    """

    def __init__(
        self,
        models: Mapping[str, Commits] | None = None,
        datasets: Mapping[str, Commits] | None = None,
        main: Mapping[str, str] | None = None,
        uploads: Uploads | None = None,
    ) -> None:
        self._repositories = {"models": dict(models or {}), "datasets": dict(datasets or {})}
        self.main = dict(main or {})
        """Repository -> the commit of its `main`, which a test may move."""
        self.uploads = uploads
        """Takes what clients upload, if there is one."""
        self.closed = threading.Event()
        for repositories in self._repositories.values():
            for commit in chain.from_iterable(repositories.values()):
                if not _COMMIT.fullmatch(commit):
                    raise ValueError(f"not a commit of 40 hexadecimal digits: {commit!r}")
        self._lock = threading.Lock()
        self._exchanges: list[Exchange] = []
        self._failures: list[_PlannedFailure] = []
        self._server: ThreadingHTTPServer | None = None
        self.url = ""

    def __enter__(self) -> HubServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_class(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving, for tests of an unreachable hub; `url` and `requests` stay readable."""
        self.closed.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def exchanges(self) -> list[Exchange]:
        """All requests so far with their statuses, oldest first."""
        with self._lock:
            return list(self._exchanges)

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and path of all requests so far, oldest first."""
        return [(exchange.method, exchange.path) for exchange in self.exchanges]

    def forget_requests(self) -> None:
        """Empty `requests` and `exchanges`."""
        with self._lock:
            self._exchanges.clear()

    def fail_next(self, n: int, status: int = 503, path_part: str = "", method: str = "") -> None:
        """Answer the next `n` requests with `status`; of all, or as `path_part` and `method` say.

        What the clients do depends on the request: of a file, they try HEAD again, but not GET.
        """
        with self._lock:
            self._failures.append(_PlannedFailure(n, status, path_part, method))

    def misbehave_next(
        self, n: int, misbehaviour: Misbehaviour, path_part: str = "", method: str = ""
    ) -> None:
        """Answer the next `n` requests of a kind as `misbehaviour` does."""
        with self._lock:
            self._failures.append(_PlannedFailure(n, misbehaviour, path_part, method))

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to one request, noted in `exchanges`."""
        url = urlsplit(target)
        failure = self._planned_failure(method, url.path)
        if isinstance(failure, int):
            answer = _json_answer({"error": "failing as told"}, failure)
        else:
            try:
                answer = self._uploaded(method, url.path, headers, body) or self._route(
                    url.path, url.query, headers, body
                )
            except HubError as error:
                answer = error.answer()
            answer.misbehave = failure
        with self._lock:
            self._exchanges.append(Exchange(method, url.path, answer.status))
        return answer

    def _uploaded(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Answer | None:
        if self.uploads is None:
            return None
        reply = self.uploads.answer(method, path, headers, body, self.url)
        return None if reply is None else _json_answer(reply[1], reply[0])

    def _planned_failure(self, method: str, path: str) -> int | Misbehaviour | None:
        with self._lock:
            for failure in self._failures:
                fits = failure.path_part in path and failure.method in ("", method)
                if fits and failure.left > 0:
                    failure.left -= 1
                    return failure.failure
        return None

    def _route(self, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if found := _RESOLVE.fullmatch(path):
            kind = found["kind"] or "models"
            commit, files = self._files(kind, found["repo"], unquote(found["revision"]))
            return _file_answer(commit, files, unquote(found["path"]), headers)
        if found := _API.fullmatch(path):
            revision = unquote(found["revision"] or "main")
            commit, files = self._files(found["kind"], found["repo"], revision)
            if found["call"] == "tree":
                recursive = parse_qs(query).get("recursive", [""])[0].lower() == "true"
                return _json_answer(_tree(commit, files, unquote(found["path"] or ""), recursive))
            if found["call"] == "paths-info":
                return _json_answer(_paths_info(files, _asked_paths(headers, body)))
            return _json_answer(_info(found["repo"], commit, files))
        return _json_answer({"error": "not found"}, 404)

    def _files(self, kind: str, repo: str, revision: str) -> tuple[str, dict[str, Path]]:
        """The commit that a revision stands for, and that commit's files by name."""
        commits = self._repositories[kind].get(repo)
        if commits is None:
            raise HubError("RepoNotFound", f"Repository not found: {repo}")
        commit = self.main.get(repo, "") if revision == "main" else revision
        if commit not in commits:
            raise HubError("RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, _files_of(commits[commit])


def client_environment(hub_url: str, home: Path, offline: bool = False) -> dict[str, str]:
    """Environment for a client process that knows this hub only and keeps its caches in `home`."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING_FACE_")) and name.lower() not in _PROXY_VARIABLES
    }
    environment |= {
        "HF_ENDPOINT": hub_url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Otherwise data sets are counted at a fixed address outside, whatever the endpoint is.
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    }
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def _handler_class(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    """A request handler that answers for `hub`."""

    class Handler(BaseHTTPRequestHandler):
        # HTTP/1.0, the default, closes each connection after its answer: none is left open that
        # would still be served after the hub is closed.

        def do_HEAD(self) -> None:
            self._reply()

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def do_PUT(self) -> None:
            self._reply()

        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = hub.answer(self.command, self.path, dict(self.headers.items()), body)
            if answer.misbehave is not None:
                with contextlib.suppress(ConnectionError):  # the client may have enough of it
                    answer.misbehave(self, answer, hub.closed)
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(answer.length or len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.content())

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the tests' output quiet; `HubServer.exchanges` has the requests."""

    return Handler


def _json_answer(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    body = json.dumps(content).encode()
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, body)


def _file_answer(
    commit: str, files: Mapping[str, Path], name: str, request_headers: Mapping[str, str]
) -> Answer:
    """A file, or the range of it that was asked for."""
    file = files.get(name)
    if file is None:
        raise HubError("EntryNotFound", f"Entry not found: {name}", commit)
    size = file.stat().st_size
    headers = {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": f'"{_etag(file)}"',
        "X-Repo-Commit": commit,
    }
    asked = {key.lower(): value for key, value in request_headers.items()}.get("range", "")
    found = _RANGE.fullmatch(asked)
    if found is None or not (found["first"] or found["last"]):
        return Answer(200, headers, file=file, length=size)
    first, last = _range_bounds(found["first"], found["last"], size)
    if first > last:
        return Answer(416, {**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Answer(206, headers, file=file, start=first, length=last - first + 1)


def _range_bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """First and last byte of a range as written in a request; "-5" is the last five bytes."""
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1


def _info(repo: str, commit: str, files: Mapping[str, Path]) -> dict[str, object]:
    return {
        "_id": commit[:24],
        "id": repo,
        "modelId": repo,
        "author": repo.split("/")[0],
        "sha": commit,
        "lastModified": "2024-01-01T00:00:00.000Z",
        "createdAt": "2024-01-01T00:00:00.000Z",
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": name} for name in files],
    }


def _tree(
    commit: str, files: Mapping[str, Path], folder: str, recursive: bool
) -> list[dict[str, object]]:
    """The entries under `folder`, "" for all; without `recursive` only its direct ones."""
    top = PurePosixPath(folder)
    if folder and top not in _folders(files):
        raise HubError("EntryNotFound", f"{folder} does not exist on {commit}", commit)
    names = [PurePosixPath(name) for name in files]
    folders = [_folder_entry(path) for path in sorted(_folders(files)) if _is_in(path, top)]
    entries = folders + [_file_entry(str(p), files[str(p)]) for p in names if _is_in(p, top)]
    if recursive:
        return entries
    return [entry for entry in entries if PurePosixPath(str(entry["path"])).parent == top]


def _is_in(path: PurePosixPath, folder: PurePosixPath) -> bool:
    return folder in path.parents


def _paths_info(files: Mapping[str, Path], paths: Sequence[str]) -> list[dict[str, object]]:
    """The entries of those paths that exist; a hub leaves out the others without a word."""
    folders = _folders(files)
    entries: list[dict[str, object]] = []
    for path in paths:
        if path in files:
            entries.append(_file_entry(path, files[path]))
        elif PurePosixPath(path) in folders:
            entries.append(_folder_entry(PurePosixPath(path)))
    return entries


def _asked_paths(headers: Mapping[str, str], body: bytes) -> list[str]:
    """The paths of a paths-info request, sent as JSON or as a form."""
    kinds = [value for key, value in headers.items() if key.lower() == "content-type"]
    if any(kind.startswith("application/json") for kind in kinds):
        return [str(path) for path in json.loads(body)["paths"]]
    return parse_qs(body.decode()).get("paths", [])


def _folders(files: Mapping[str, Path]) -> set[PurePosixPath]:
    """All folders that hold files, the repository itself left out."""
    return {parent for name in files for parent in PurePosixPath(name).parents if parent.name}


def _folder_entry(path: PurePosixPath) -> dict[str, object]:
    digest = hashlib.sha1(str(path).encode()).hexdigest()
    return {"type": "directory", "oid": digest, "size": 0, "path": str(path)}


def _file_entry(name: str, file: Path) -> dict[str, object]:
    size = file.stat().st_size
    entry: dict[str, object] = {"type": "file", "oid": _etag(file), "size": size, "path": name}
    if file.suffix in _LARGE_FILES:
        sha256 = _etag(file)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        entry["oid"] = _git_digest(pointer.encode())
        entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": len(pointer)}
    return entry


def _files_of(folder: Path) -> dict[str, Path]:
    """A folder's files by name, read anew each time. Names not listed here are not served."""
    root = folder.resolve()
    return {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        # A link must not lead out of the folder.
        if path.is_file() and path.resolve().is_relative_to(root)
    }


def _etag(file: Path) -> str:
    """A file's name in the clients' caches: SHA-256 for large kinds, else git's blob name."""
    stat = file.stat()
    return _digest(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest(file: Path, size: int, modified: int) -> str:
    """`_etag`, kept until size or time of change (here only as cache keys) are others."""
    content = file.read_bytes()
    if file.suffix in _LARGE_FILES:
        return hashlib.sha256(content).hexdigest()
    return _git_digest(content)


def _git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


# Repositories to serve. The libraries that write them take seconds to import, so each function
# imports what it needs: a test that only wants the server does not wait for them.

END_OF_TEXT = "<|endoftext|>"
SNLI_LABELS = ("entailment", "neutral", "contradiction")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


class SnliRow(NamedTuple):
    """One pair of sentences; label -1 is how SNLI marks pairs without a majority label."""

    premise: str
    hypothesis: str
    label: int


def write_phi_repository(folder: Path, seed: int, tokenizer_dir: Path | None = None) -> None:
    """A small PhiForCausalLM with random weights in two shards with an index, and a tokenizer.

    The tokenizer is a small one made here, or a copy of the one in `tokenizer_dir`.
    """
    import torch
    from transformers import AutoTokenizer, PhiConfig, PhiForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer_dir is None:
        _write_tokenizer(folder)
    else:
        for file in (tokenizer_dir / name for name in _TOKENIZER_FILES):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = PhiConfig(
        # As in the published models, whose vocabulary is padded too.
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PhiForCausalLM(config)
    sizes = [tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()]
    # Shards are filled in order until the next tensor does not fit. With half the weights and the
    # largest tensor as the limit, the first gets more than half and the second takes the rest.
    model.save_pretrained(folder, max_shard_size=sum(sizes) // 2 + max(sizes))
    if len(list(folder.glob("*.safetensors"))) != 2:
        raise RuntimeError(f"the weights in {folder} are not in two shards")


def _write_tokenizer(folder: Path) -> None:
    """A byte-level BPE tokenizer, so of Phi's kind, trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sentences = [f"{row.premise} {row.hypothesis}" for row in example_rows(100)]
    tokenizer.train_from_iterator([*sentences, *SNLI_LABELS], trainer)
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call, unused-ignore]
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=512,
    ).save_pretrained(folder)


def example_rows(count: int) -> list[SnliRow]:
    """Rows in the manner of SNLI, always the same; every tenth has the label -1."""
    people = ("A man", "A woman", "A child", "An old couple", "A cyclist")
    scenes = (
        # what the premise says, then an entailed, a neutral and a contradicting hypothesis
        ("rides a bike", "is outdoors", "is late for work", "sleeps in a bed"),
        ("plays the guitar", "makes music", "plays for money", "holds no instrument"),
        ("eats an apple", "eats fruit", "is very hungry", "eats nothing"),
        ("reads a book", "reads something", "reads a novel", "swims in a lake"),
    )
    rows = []
    for index in range(count):
        label = index % 3
        person, scene = people[index % len(people)], scenes[index % len(scenes)]
        row = SnliRow(f"{person} {scene[0]}.", f"{person} {scene[1 + label]}.", label)
        rows.append(row._replace(label=-1) if index % 10 == 9 else row)
    return rows


def write_snli_repository(folder: Path, rows: Mapping[str, Sequence[SnliRow]]) -> None:
    """A data set laid out as stanfordnlp/snli: a card, and one parquet file a split."""
    import pyarrow  # type: ignore[import-untyped, unused-ignore]
    import pyarrow.parquet  # type: ignore[import-untyped, unused-ignore]

    schema = pyarrow.schema({"premise": "string", "hypothesis": "string", "label": pyarrow.int64()})
    data = folder / "plain_text"
    data.mkdir(parents=True, exist_ok=True)
    for split, pairs in rows.items():
        table = pyarrow.Table.from_pylist([pair._asdict() for pair in pairs], schema)
        pyarrow.parquet.write_table(table, data / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(_snli_card(rows), encoding="utf-8")


def _snli_card(rows: Mapping[str, Sequence[SnliRow]]) -> str:
    """The README; its front matter tells `load_dataset` configuration, files and features."""
    names = "\n".join(f"          '{i}': {name}" for i, name in enumerate(SNLI_LABELS))
    splits = "\n".join(
        f"  - name: {split}\n    num_bytes: {_text_bytes(pairs)}\n    num_examples: {len(pairs)}"
        for split, pairs in rows.items()
    )
    files = "\n".join(f"  - split: {split}\n    path: plain_text/{split}-*" for split in rows)
    total = sum(map(_text_bytes, rows.values()))
    return f"""---
language:
- en
pretty_name: Small stand-in for SNLI
dataset_info:
  config_name: plain_text
  features:
  - name: premise
    dtype: string
  - name: hypothesis
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
{names}
  splits:
{splits}
  download_size: {total}
  dataset_size: {total}
configs:
- config_name: plain_text
  data_files:
{files}
---
# Small stand-in for SNLI
"""


def _text_bytes(pairs: Sequence[SnliRow]) -> int:
    return sum(len(pair.premise) + len(pair.hypothesis) + 8 for pair in pairs)
