"""Publishes a folder as a model on a hub, through the hub's own client.

The client takes the token from the environment (HF_TOKEN, or a login of its own). It is written to
no record and no message.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nlijob.disk import disk_fault
from nlijob.errors import ConfigurationError, NotAvailableError, first_line
from nlijob.waiting import while_moving


class Publisher:
    """Uploads folders to one repository."""

    def __init__(self, repository: str, public: bool, tell: Callable[[str], None]) -> None:
        """`public`: whether a new repository may be seen by all; one that exists stays as it is.

        Raises ConfigurationError if the name cannot be a repository's, or without a token. Asks no
        hub.
        """
        import huggingface_hub
        from huggingface_hub import constants
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils._validators import validate_repo_id

        try:
            validate_repo_id(repository)
        except HFValidationError as error:
            raise ConfigurationError(f"--push {repository!r}: {first_line(error)}") from error
        if repository.count("/") != 1:
            raise ConfigurationError(f"--push {repository!r}: give it as OWNER/NAME")
        token = huggingface_hub.get_token()
        if not token:
            raise ConfigurationError(
                "--push: there is no token for the hub", "set HF_TOKEN to one that may write"
            )
        self._repository = repository
        self._is_public = public
        self._tell = tell
        self._token = token
        self._api: Any = huggingface_hub.HfApi(endpoint=constants.ENDPOINT, token=token)

    def publish(self, folder: Path, what: str) -> str:
        """Upload all files of a folder in one commit, and return the address of the model.

        A new repository is private unless it was asked to be public. Raises ConfigurationError if
        the repository is public already and that was not asked for, and NotAvailableError if the
        hub refuses or cannot be reached.
        """
        with self._told(folder):
            self._ensure_repository()
            self._tell(f"      uploading {folder} to {self._repository}")
            message = f"Upload {what} (nlijob)"
            while_moving(
                lambda _: self._api.upload_folder(
                    repo_id=self._repository, folder_path=folder, commit_message=message
                ),
                math.inf,  # the client has limits of its own; a stop ends the wait
            )
        return f"{self._api.endpoint}/{self._repository}"

    def _ensure_repository(self) -> None:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = self._api.repo_info(self._repository)
        except RepositoryNotFoundError:
            self._api.create_repo(self._repository, private=not self._is_public, exist_ok=True)
            return
        if not info.private and not self._is_public:
            raise ConfigurationError(
                f"--push {self._repository}: this repository is public, and the report shows rows "
                "of the data set",
                "give --public if all may see it, or name another repository",
            )

    @contextlib.contextmanager
    def _told(self, folder: Path) -> Iterator[None]:
        from httpx2 import HTTPError
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except (HfHubHTTPError, HTTPError, OSError, RuntimeError, ValueError) as error:
            if fault := disk_fault(error):
                raise fault from error
            reason = first_line(error).replace(self._token, "***")
            raise NotAvailableError(
                f"{self._repository} cannot be published: {reason}",
                "check the name, the network, and that HF_TOKEN may write there; the export in "
                f"{folder} is complete, and the same command publishes it",
            ) from None
