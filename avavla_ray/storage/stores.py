"""Connections to the file systems that data sets and runs lie on, and what their errors mean to who named them."""

from __future__ import annotations

import functools
import os
import re
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from avavla_ray.errors import InputError, check_known

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET = re.compile(r"key|secret|token|password|signature|credential|^sig$", re.IGNORECASE)
_S3_OPTIONS = ("anonymous", "endpoint_override", "force_virtual_addressing", "region", "scheme", "tls_ca_file_path")
_BUILT_IN = {"file", "hdfs", "viewfs", "abfs", "abfss"}
_BUCKETS = ("s3", "gs", "gcs")
_FORMS = {"file": "file:///FOLDER", "abfs": "abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER"}

# An unreachable store is given up in under a minute. pyarrow's own limits: S3's are for a network next door, Google's
# is a quarter of an hour.
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0  # without a byte
ATTEMPTS = 3
RETRY_SECONDS = 30

_UNREACHABLE = re.compile(
    r"NETWORK_CONNECTION|UNAVAILABLE|SLOW_DOWN|THROTTLING|INTERNAL_FAILURE|REQUEST_TIMEOUT|HTTP status 5\d\d"
    r"|Could not (?:connect|resolve)|Connection refused|timed out"
)
_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION"
    r"|INVALID_CLIENT_TOKEN|UNAUTHENTICATED|PERMISSION_DENIED|HTTP status 40[13]"
)
_STORE = re.compile(r"AWS Error|google::cloud|Azure|HDFS")
_KEYS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may read it",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of an account that may read it",
    "gcs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of an account that may read it",
}


class StoreUnreachable(InputError):
    """A store that does not answer: it may do so again later."""


class NothingThere(InputError):
    """A place that holds nothing, or a bucket that does not exist."""


def scheme_of(where: str) -> str | None:
    """What stands before "://", in small letters; None of a local path."""
    match = SCHEME.match(where)
    return match[1].lower() if match else None


def without_secrets(uri: str) -> str:
    """The URI without a password before its host and without keys in its query.

    Raises:
        InputError: it is malformed.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InputError(f"a {scheme_of(uri)}:// address is malformed ({error}): correct it") from error
    user, at, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    # Of a key and its secret the key is not shown either; before an "@" alone stands a container or a user.
    netloc = host if not name or parts.scheme == "s3" else name + at + host
    query = [(option, value) for option, value in parse_qsl(parts.query) if not _SECRET.search(option)]
    return joined(parts._replace(netloc=netloc, query=urlencode(query, safe=":/")))


def joined(parts: SplitResult) -> str:
    """The URI of its parts; always with "//", which `urlunsplit` leaves out where no host follows."""
    return f"{parts.scheme}://{urlunsplit(parts._replace(scheme='')).removeprefix('//')}"


def connect(where: str) -> tuple[fs.FileSystem, str]:
    """The file system of a local path or URI, and the path on it. Stores are asked nothing yet, except S3 for its
    bucket's region where none is given.

    Raises:
        InputError: see `Place.of`.
    """
    scheme = scheme_of(where)
    if scheme is None:
        return fs.LocalFileSystem(), where
    shown = without_secrets(where)
    _check_complete(urlsplit(where), shown)
    try:
        if scheme == "s3":
            return _s3(where)
        if scheme in ("gs", "gcs"):
            return fs.FileSystem.from_uri(_with_option(where, "retry_limit_seconds", str(RETRY_SECONDS)))
        if scheme in _BUILT_IN:
            return fs.FileSystem.from_uri(where)
        return _fsspec(where, scheme, shown)
    except pa.ArrowInvalid as error:
        detail = first_line(error).replace(where, shown).replace(urlsplit(where).netloc, urlsplit(shown).netloc)
        raise InputError(f"{shown} is no address that can be read ({detail}): correct it") from error
    except OSError as error:
        raise explain(error, shown, scheme) or InputError(
            f"{shown}: the scheme {scheme} cannot be used here ({first_line(error)}): install what it needs"
        ) from error


def _check_complete(parts: SplitResult, shown: str) -> None:
    if parts.scheme in _BUCKETS:
        if not parts.netloc.rpartition("@")[2]:
            raise InputError(f"{shown} names no bucket: give {parts.scheme}://BUCKET/FOLDER")
    elif not parts.netloc and not parts.path.strip("/"):
        form = _FORMS.get(parts.scheme, f"{parts.scheme}://HOST/FOLDER")
        raise InputError(f"{shown} names no folder: give {form}")


def explain(error: Exception, shown: str, scheme: str | None) -> InputError | None:
    """What a store's error means; None where it is not the store's, but of what was read."""
    text = first_line(error)
    if isinstance(error, PermissionError):
        return InputError(f"{shown} may not be read by this user: make it readable")
    if scheme is None:
        return None
    if _UNREACHABLE.search(text):
        cause = re.search(r"(?:curlCode: \d+, |CURL error \[\d+\]=)([^;\])]+?)(?:;| error_info|$)", text)
        return StoreUnreachable(
            f"{shown}: the store does not answer ({cause[1] if cause else text}): check its address and the network"
        )
    if "NO_SUCH_BUCKET" in text:
        bucket = urlsplit(shown).netloc
        return NothingThere(f"{shown}: there is no bucket {bucket!r}: correct its name or the store's address")
    if _REFUSED.search(text):
        return InputError(f"{shown}: the store refuses access: {_KEYS.get(scheme, 'give it your credentials')}")
    if _STORE.search(text):
        return InputError(f"{shown} cannot be read ({text}): check the address, or try again")
    return None


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _s3(where: str) -> tuple[fs.FileSystem, str]:
    parts = urlsplit(where)
    user, _, bucket = parts.netloc.rpartition("@")
    given = dict(parse_qsl(parts.query))
    for name in given:
        check_known("option of an s3 address", name, _S3_OPTIONS)
    options: dict[str, Any] = {name: given[name] for name in ("scheme", "region", "tls_ca_file_path") if name in given}
    options |= {
        name: given[name].lower() == "true" for name in ("anonymous", "force_virtual_addressing") if name in given
    }
    endpoint = given.get("endpoint_override") or _first_of("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    if endpoint:
        scheme, separated, host = endpoint.rpartition("://")
        options["endpoint_override"] = host.rstrip("/")
        if separated:
            options.setdefault("scheme", scheme)
    if user:
        options["access_key"], _, options["secret_key"] = (unquote(part) for part in user.partition(":"))
    if not endpoint and "region" not in options and not _first_of("AWS_REGION", "AWS_DEFAULT_REGION"):
        options["region"] = _region(bucket)
    if int(pa.__version__.partition(".")[0]) >= 20:
        options["allow_delayed_open"] = True  # a small file takes one request instead of three
    system = fs.S3FileSystem(
        connect_timeout=CONNECT_SECONDS,
        request_timeout=ANSWER_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        **options,
    )
    return system, (bucket + unquote(parts.path)).rstrip("/")


@functools.lru_cache(maxsize=64)
def _region(bucket: str) -> str:
    try:
        return fs.resolve_s3_region(bucket)
    except OSError as error:
        if "not found" not in first_line(error):
            raise
        raise NothingThere(
            f"there is no bucket {bucket!r} in S3: correct its name, or give endpoint_override"
        ) from error


def _first_of(*names: str) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _fsspec(where: str, scheme: str, shown: str) -> tuple[fs.FileSystem, str]:
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(where)
    except ImportError as error:
        raise InputError(f"{shown}: the scheme {scheme} needs a package: {first_line(error)}") from error
    except ValueError as error:
        raise InputError(
            f"{shown}: unknown scheme {scheme}: give a local path, s3://, gs://, hdfs://, abfs://, file://, or install "
            "the fsspec package that knows it"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path


def _with_option(uri: str, name: str, value: str) -> str:
    parts = urlsplit(uri)
    query = parse_qsl(parts.query)
    if name in dict(query):
        return uri
    return urlunsplit(parts._replace(query=urlencode([*query, (name, value)], safe=":/")))
