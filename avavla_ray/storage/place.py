"""Where a data set or a run lies: a local folder, or one in a store or on any other file system pyarrow knows."""

from __future__ import annotations

import functools
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from avavla_ray.errors import InputError
from avavla_ray.storage.stores import (
    NothingThere,
    connect,
    explain,
    first_line,
    joined,
    scheme_of,
    without_secrets,
)


def absolute(where: str | Path) -> str:
    """The same place, named so that processes in other working folders find it too."""
    return str(where) if scheme_of(str(where)) else str(Path(where).absolute())


class Place:
    """A folder or file to read. Make one with `of`; a pickled copy opens a connection of its own.

    `str(place)` is what it was made of, without passwords and keys.
    """

    def __init__(self, root: str, shown: str, inside: str = "") -> None:
        """
        Args:
            root: what the connection is made of, secrets included. shown: how that is printed. inside: path below it.
        """
        self._root, self._shown, self._inside = root, shown, inside

    @functools.cached_property
    def _connection(self) -> tuple[fs.FileSystem, str]:
        return connect(self._root)

    @classmethod
    def of(cls, where: str | Path | Place) -> Place:
        """From a local path or a URI: s3://BUCKET/FOLDER?endpoint_override=HOST:PORT&scheme=http&region=REGION, gs://,
        hdfs://, abfs://, file://, or any scheme that an installed fsspec package knows.

        Credentials are those of the environment (for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), of the store's
        configuration files, or of the machine; `anonymous=true` asks S3 without. AWS_ENDPOINT_URL names another S3
        store than AWS's where the URI does not.

        Raises:
            InputError: an empty name, an unknown scheme or option, a library that is missing, a malformed URI.
        """
        if isinstance(where, Place):
            return where
        if not str(where).strip():
            raise InputError(f"{str(where)!r} names no place: give a folder or a URI")
        if scheme_of(str(where)) is None:
            # Absolute, since a worker may run in another folder.
            return cls(absolute(where), str(where))
        place = cls(str(where), without_secrets(str(where)))
        _ = place._connection  # what is wrong with the address is said now
        return place

    def __truediv__(self, name: str) -> Place:
        inside = f"{self._inside}/{name}" if self._inside else name
        below = Place(self._root, self._shown, inside)
        below._connection = self._connection
        return below

    def __reduce__(self) -> tuple[type[Place], tuple[str, str, str]]:
        return Place, (self._root, self._shown, self._inside)

    def __str__(self) -> str:
        if not self._inside:
            return self._shown
        if self.local:
            return str(Path(self._shown) / self._inside)
        parts = urlsplit(self._shown)
        return joined(parts._replace(path=f"{parts.path.rstrip('/')}/{self._inside}"))

    def __repr__(self) -> str:
        return f"Place({str(self)!r})"

    @property
    def local(self) -> bool:
        """A path of this machine, where many small reads cost nothing."""
        return scheme_of(self._root) is None

    def is_file(self) -> bool:
        """Raises InputError where the store does not answer or refuses."""
        return self._kind(self.path) == fs.FileType.File

    def is_folder(self) -> bool:
        """Raises InputError where the store does not answer or refuses, or has no such bucket."""
        kind = self._kind(self.path)
        if kind == fs.FileType.NotFound and scheme_of(self._root) in ("s3", "gs", "gcs"):
            bucket = self.path.partition("/")[0]
            if self._kind(bucket) == fs.FileType.NotFound:
                raise NothingThere(f"{self}: there is no bucket {bucket!r}: correct its name or the store's address")
        return kind == fs.FileType.Directory

    def open(self) -> pa.NativeFile:
        """For random access. Raises FileNotFoundError, and InputError as `is_file`."""
        try:
            return self.system.open_input_file(self.path)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def read_bytes(self) -> bytes:
        """All of a file. Raises as `open`."""
        with self.open() as stream:
            try:
                return stream.read()
            except (OSError, pa.ArrowException) as error:
                raise self._unreadable(error) from error

    def explain(self, error: Exception) -> InputError | None:
        """See `stores.explain`; for those who read from what `open` returns."""
        return explain(error, str(self), scheme_of(self._root))

    @property
    def system(self) -> fs.FileSystem:
        """pyarrow's, open."""
        return self._connection[0]

    @property
    def path(self) -> str:
        """On that file system."""
        base = self._connection[1]
        return f"{base.rstrip('/')}/{self._inside}" if self._inside else base

    @property
    def name(self) -> str:
        """The last part of it."""
        return self.path.rstrip("/").rpartition("/")[2]

    def up(self) -> Place | None:
        """The folder around it; None of a bucket, a root or a local path."""
        if self._inside:
            above = Place(self._root, self._shown, self._inside.rpartition("/")[0])
            above._connection = self._connection
            return above
        root, shown = urlsplit(self._root), urlsplit(self._shown)
        folder, _, name = root.path.rstrip("/").rpartition("/")
        if self.local or not name or not (folder or root.netloc):
            return None
        return Place(
            joined(root._replace(path=folder)),
            joined(shown._replace(path=shown.path.rstrip("/").rpartition("/")[0])),
        )

    def _kind(self, path: str) -> fs.FileType:
        try:
            return self.system.get_file_info(path).type
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> InputError:
        return self.explain(error) or InputError(f"{self} cannot be read ({first_line(error)}): check what it is")
