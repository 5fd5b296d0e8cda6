"""Checks the files of a model before the GPU side loads them, and without its libraries."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from nlijob.errors import NotAvailableError, first_line
from nlijob.weight_files import LFS_POINTER, BrokenFileError, stored_tensors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")
NEEDED = {
    CONFIG: (CONFIG,),
    WEIGHTS: (WEIGHTS, INDEX),
    "tokenizer.json": (
        "tokenizer.json",
        "tokenizer_config.json",
        "*.model",
        "*.tiktoken",
        "vocab.*",
    ),
}
"""File that a model needs -> those of which one will do."""
MAX_JSON_BYTES = {CONFIG: 10 * 1024**2, INDEX: 200 * 1024**2}
LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
HINT = "name a folder that save_pretrained wrote, or a hub model id with safetensors"
FORMAT = (
    "it has weights in another format ({found}). This job reads safetensors only, because other "
    "formats can contain code: take a revision of the model with safetensors, or "
)
CONVERT = (
    "convert this one with the command below, and give its last argument as --model:\n"
    "  {python} -c {script} {source} {target}"
)
SCRIPT = (
    "import sys, transformers as t; source, target = sys.argv[1:]; "
    "t.{model_class}.from_pretrained(source).save_pretrained(target); "
    "t.AutoTokenizer.from_pretrained(source).save_pretrained(target)"
)
"""Reads weights that torch pickled without running what they contain (torch's weights_only)."""
MODEL_CLASS = re.compile(r"[A-Za-z_]\w*(LM|LMHead|Model|Generation|Classification|Decoder)\w*")
"""Names of transformers' classes of models; config.json holds one, from which a script is made."""
KINDS = ("models/auto/auto_mappings.py", "models/auto/configuration_auto.py")
"""Files of transformers that list the types of models that it has."""


def check_model_folder(name: str, folder: Path, trust_remote_code: bool = False) -> None:
    """Raise NotAvailableError that names each file which is missing or cannot be used.

    `trust_remote_code`: whether the model may need code of its own.
    """
    try:
        if not trust_remote_code:
            check_code(name, folder)
        missing = list(_missing(folder))
        faults = [] if missing else _faults(folder, _config_fault, _tokenizer_fault, _weights_fault)
        if not missing and not faults:
            faults = _faults(folder, _layers_fault)
    except OSError as error:
        missing, faults = [], [_unreadable(folder, error)]
    if missing:
        raise NotAvailableError(
            f"model {name}: {folder} has no {', '.join(missing)}", _hint(folder, missing)
        )
    if faults:
        raise NotAvailableError(
            f"model {name}: {'; '.join(faults)}", f"download it or save it again; it is in {folder}"
        )


def check_code(name: str, folder: Path) -> None:
    """Raise NotAvailableError if a model is computed by code that comes with it."""
    config = folder / CONFIG
    if not config.is_file():
        return
    try:
        content = _json_object(config)
    except BrokenFileError:  # others tell this
        return
    kind, places = content.get("model_type"), content.get("auto_map")
    if not isinstance(kind, str) or not isinstance(places, dict) or _is_known(kind):
        return
    files = sorted({f"{str(place).partition('.')[0]}.py" for place in places.values()})
    raise NotAvailableError(
        f"model {name} is computed by code of its own ({kind}: {', '.join(files)}), which this job "
        "does not run unless it is told to",
        "read that code, then allow it with --trust-remote-code (model.trust_remote_code=true), or "
        "take a model that transformers itself has",
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a checked folder's model is loaded from."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    return [folder / shard for shard in _shards(folder)]


# ---------------------------------------------------------------- detail


def _missing(folder: Path) -> Iterator[str]:
    for file, patterns in NEEDED.items():
        found = [path for pattern in patterns for path in _matching(folder, pattern)]
        if not any(path.exists() for path in found):
            yield f"{found[0].name} (it is a link to a file that is gone)" if found else file


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder, and links to files that are gone."""
    if "*" in pattern:
        return sorted(folder.glob(pattern))
    path = folder / pattern
    return [path] if path.is_symlink() or path.exists() else []


def _hint(folder: Path, missing: list[str]) -> str:
    found = sorted(file.name for pattern in OTHER_WEIGHTS for file in folder.glob(pattern))
    if WEIGHTS not in missing or not found:
        return HINT
    means = _conversion(folder) if any(folder.glob("*.bin")) else ""
    return FORMAT.format(found=found[0]) + (means or "write it again with save_pretrained")


def _conversion(folder: Path) -> str:
    """The command that writes a model's pickled weights as safetensors, and its tokenizer."""
    try:
        classes = _json_object(folder / CONFIG).get("architectures")
    except (BrokenFileError, OSError):
        return ""
    known = classes[0] if isinstance(classes, list) and classes else "AutoModelForCausalLM"
    if not isinstance(known, str) or not MODEL_CLASS.fullmatch(known):
        return ""
    return CONVERT.format(
        python=shlex.quote(sys.executable),
        script=shlex.quote(SCRIPT.format(model_class=known)),
        source=shlex.quote(str(folder)),
        target=shlex.quote(f"{folder.name}-safetensors"),
    )


def _is_known(kind: str) -> bool:
    """Whether transformers has such models itself, read from its files without importing it.

    Where they cannot be read it is taken for known; the GPU side says if it is not.
    """
    spec = importlib.util.find_spec("transformers")
    places = list(spec.submodule_search_locations or ()) if spec else []
    files = [Path(place) / file for place in places for file in KINDS]
    texts = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    return not texts or any(f'"{kind}"' in text for text in texts)


def _faults(folder: Path, *checks: Callable[[Path], str]) -> list[str]:
    """What is wrong with the files, each as "FILE is ..."."""
    found = []
    for check in checks:
        try:
            found.append(check(folder))
        except BrokenFileError as error:
            found.append(str(error))
        except OSError as error:
            found.append(_unreadable(folder, error))
    return [fault for fault in found if fault]


def _unreadable(folder: Path, error: OSError) -> str:
    return f"{error.filename or folder} cannot be read: {error.strerror or error}"


def _config_fault(folder: Path) -> str:
    kind = _json_object(folder / CONFIG).get("model_type")
    if isinstance(kind, str) and kind:
        return ""
    return f"{CONFIG} does not say what kind of model it is (model_type)"


def _layers_fault(folder: Path) -> str:
    """A model of a million layers takes hours to build, even without its weights."""
    config = _json_object(folder / CONFIG)
    text = config.get("text_config")
    parts = [config, text if isinstance(text, dict) else {}]
    layers = [part.get(key) for part in parts for key in LAYER_KEYS]
    most = max((number for number in layers if type(number) is int), default=0)
    tensors = sum(len(_tensor_names(file)) for file in weight_files(folder))
    if most <= tensors:
        return ""
    return f"{CONFIG} says that there are {most:,} layers, but the files hold {tensors:,} tensors"


def _tokenizer_fault(folder: Path) -> str:
    file = folder / "tokenizer.json"
    if not file.exists():
        return ""
    model = _json_object(file).get("model")
    return "" if isinstance(model, dict) and model else "tokenizer.json holds no tokenizer"


def _weights_fault(folder: Path) -> str:
    if (folder / WEIGHTS).exists():
        _tensor_names(folder / WEIGHTS)
        return ""
    shards = _shards(folder)
    gone = [shard for shard in shards if not (folder / shard).exists()]
    if gone:
        return f"{folder} has no {', '.join(gone[:5])}{' ...' if len(gone) > 5 else ''}"
    for shard, names in shards.items():
        lacking = sorted(set(names) - _tensor_names(folder / shard))
        if lacking:
            return f"{shard} lacks the tensor {lacking[0]} that {INDEX} says it has"
    return ""


def _tensor_names(file: Path) -> set[str]:
    try:
        return {tensor.name for tensor in stored_tensors(file)}
    except BrokenFileError as error:
        raise BrokenFileError(f"{file.name} {error}") from error


def _shards(folder: Path) -> dict[str, list[str]]:
    """File -> the tensors that the index says it has."""
    places = _json_object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise BrokenFileError(f"{INDEX} lists no tensors (weight_map)")
    shards: dict[str, list[str]] = {}
    for tensor, file in places.items():
        if not isinstance(file, str) or not _is_within(file):
            raise BrokenFileError(f"{INDEX} places the tensor {tensor} outside the model's folder")
        shards.setdefault(file, []).append(tensor)
    return shards


def _is_within(file: str) -> bool:
    path = PurePosixPath(file)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _json_object(file: Path) -> dict[str, Any]:
    """The content of a JSON file. Raises BrokenFileError, whose message names the file."""
    limit = MAX_JSON_BYTES.get(file.name)
    if limit is not None and file.stat().st_size > limit:
        raise BrokenFileError(f"{file.name} has {file.stat().st_size:,} bytes, over {limit:,}")
    content = file.read_bytes()
    if not content.strip():
        raise BrokenFileError(f"{file.name} is empty")
    if content.startswith(LFS_POINTER):
        raise BrokenFileError(f"{file.name} is a Git LFS pointer: run `git lfs pull`")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BrokenFileError(f"{file.name} is not JSON: {first_line(error)}") from error
    if not isinstance(value, dict):
        raise BrokenFileError(f"{file.name} is not a JSON object")
    return value
