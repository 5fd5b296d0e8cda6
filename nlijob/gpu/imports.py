"""How the GPU side imports its libraries: without what it never uses.

transformers and accelerate look for some libraries that have nothing to do with text, and import
those that happen to be installed. That can take longer than all other imports together. While the
GPU side starts, these look as if they were not installed. So each place that asks for one of them
does what it does where there is none. Imports after the start find them, but transformers remembers
its answers: in this process it goes on without them.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

from nlijob.surroundings import ALL_LIBRARIES

NO_COMPILER = "TORCHDYNAMO_DISABLE"
HIDDEN = {
    "sklearn": "transformers chooses between drafts of assisted generation with it",
    "scipy": "the losses of models that find objects in pictures",
    "torchvision": "pictures",
    "PIL": "pictures",
    "torchaudio": "sound",
    "boto3": "accelerate asks about Amazon's services with it",
    "dill": "torch sends its data pipes, which are not in use, to other processes with it",
    "anyio": "asynchronous requests of the hub's client, and the GPU side makes no requests",
}
"""Optional library -> what those that ask for it use it for."""
T = TypeVar("T")


def imported(importing: Callable[[], T]) -> T:
    """What `importing` returns; it imports without what is never used.

    If a library cannot do without one of those that are hidden, it is imported as usual.
    """
    with lean_imports():
        if not os.environ.get(ALL_LIBRARIES):
            with contextlib.suppress(ImportError), hidden():
                return importing()
        return importing()


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Let libraries that are not imported yet look as if they were not installed.

    What Python documents for that is an entry None among the imported modules: an import raises
    ModuleNotFoundError, and `importlib.util.find_spec` finds nothing.
    """
    names = [name for name in HIDDEN if name not in sys.modules]
    absent: dict[str, None] = dict.fromkeys(names)
    sys.modules.update(absent)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in names:
            if name in sys.modules and sys.modules[name] is None:
                del sys.modules[name]


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """Import without garbage collection and without torch's compiler, which saves a quarter.

    Imports leave almost no garbage, and bitsandbytes loads the compiler at import only for
    functions that lack a kernel. Later compilation is not affected.
    """
    gc.disable()
    before = os.environ.get(NO_COMPILER)
    os.environ[NO_COMPILER] = "1"
    try:
        yield
    finally:
        del os.environ[NO_COMPILER]
        if before is not None:
            os.environ[NO_COMPILER] = before
        gc.freeze()
        gc.enable()
