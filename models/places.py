"""Where a model store lies: a folder of this machine, or any URL that fsspec knows (S3, GCS, Azure, SFTP, memory).

Four verbs are all that a store needs. A file that is written is there whole or not at all: on disk it is renamed into
place, and object stores take an object in one go.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final, Protocol

from models.errors import StoreError

#: A larger file is no part of an artifact; see ``models.artifact``.
MOST_BYTES: Final = 256 << 20
#: fsspec's names of what has buckets in place of folders.
_BUCKETS: Final = frozenset({"s3", "gs", "gcs", "abfs", "az"})


class Place(Protocol):
    """A tree of files; names are relative, with slashes. Raises ``StoreError`` where the place does not answer."""

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; none if there is no such folder."""
        ...

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is no such file."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        ...

    def local(self, folder: str) -> Path | None:
        """The folder on this machine, if it is one."""
        ...


class Disk:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self, folder: str) -> list[str]:
        """See ``Place``; names that begin with a dot are half-written."""
        path = self._root / folder
        try:
            return sorted(held.name for held in path.iterdir() if not held.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None

    def read(self, name: str) -> bytes | None:
        """See ``Place``."""
        path = self._root / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None
        with os.fdopen(handle, "rb") as file:
            return _bounded(file.read(MOST_BYTES + 1), str(path))

    def write(self, name: str, content: bytes) -> None:
        """See ``Place``."""
        path = self._root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
                try:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    os.fchmod(file.fileno(), 0o644)
                    Path(file.name).replace(path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}; nothing was changed") from None

    def local(self, folder: str) -> Path:
        """See ``Place``."""
        return self._root / folder


class Remote:
    """A URL that fsspec knows. What it needs to be let in comes from the environment, as its own library says."""

    def __init__(self, url: str) -> None:
        import fsspec  # noqa: PLC0415 (a store on disk needs none of it)

        try:
            fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            raise StoreError(f"{url}: {error}; for S3: pip install 'headrace[s3]'") from None
        except (ValueError, OSError) as error:
            raise StoreError(f"{url}: {error}") from None
        self._fs: Any = fs
        # There are no folders to make in a bucket, and making one would make a bucket of a misspelt name.
        self._buckets = not _BUCKETS.isdisjoint([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)
        self._root = str(root).rstrip("/")
        self._url = url

    def names(self, folder: str) -> list[str]:
        """See ``Place``."""
        try:
            self._fs.invalidate_cache()
            held = self._fs.ls(f"{self._root}/{folder}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:  # each library has a tree of errors of its own
            raise StoreError(f"{self._url}/{folder}: {type(error).__name__}: {error}") from error
        return sorted(name for path in held if (name := str(path).rstrip("/").rsplit("/", 1)[-1]))

    def read(self, name: str) -> bytes | None:
        """See ``Place``."""
        try:
            with self._fs.open(f"{self._root}/{name}", "rb") as file:
                content: bytes = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except Exception as error:  # likewise
            raise StoreError(f"{self._url}/{name}: {type(error).__name__}: {error}") from error
        return _bounded(content, f"{self._url}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """See ``Place``."""
        try:
            if not self._buckets:
                self._fs.makedirs(f"{self._root}/{name}".rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(f"{self._root}/{name}", content)
        except Exception as error:  # likewise
            raise StoreError(f"{self._url}/{name}: {type(error).__name__}: {error}") from error

    def local(self, folder: str) -> None:  # noqa: ARG002 (it is never here)
        """See ``Place``."""
        return


def place_of(url: str, base: Path = Path()) -> Place:
    """The place that ``url`` names; a path is relative to ``base``."""
    if "://" in url:
        return Remote(url)
    return Disk(base / url)


def _bounded(content: bytes, name: str) -> bytes:
    if len(content) > MOST_BYTES:
        raise StoreError(f"{name}: larger than {MOST_BYTES} bytes")
    return content
