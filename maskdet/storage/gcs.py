"""Google Cloud Storage, through the client that Beam makes for its options, and the search for credentials.

Beam's own filesystem is not used: it makes a client for every call, asks twice for every read, deletes by listing, and
hangs for 20 s or more on a machine without credentials.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from maskdet.errors import AccessDeniedError, NotFoundError
from maskdet.storage import stores
from maskdet.storage.connections import are_direct
from maskdet.storage.faults import persist, status_of
from maskdet.storage.gcs_reads import Reads
from maskdet.storage.names import StoredFile, bucket_and_key

T = TypeVar("T")

# A metadata server is one hop away; the time holds one repeat of a lost packet. Google's library tries for 20 s.
METADATA_DEADLINE_S = 1.5
_PRODUCT_NAME = Path("/sys/class/dmi/id/product_name")
_FIELDS = "items(name,size,generation),nextPageToken"
_REMEDY = "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file"


class _Access(NamedTuple):
    client: Any
    """A ``google.cloud.storage.Client``."""
    anonymous_because: str
    """Why requests carry no credentials; empty if they carry some, or are meant to carry none."""


class _KeptReads(NamedTuple):
    reads: Reads | None
    """``None`` where the library has to make the requests."""
    anonymous_because: str


class GcsStore:
    """As :class:`maskdet.storage.stores.Store`."""

    def __init__(self) -> None:
        self._access = stores.KeptClient(_make_access, shared=False)  # a requests session must not be shared by threads
        self._reads = stores.KeptClient(_make_reads, shared=True)

    def read(self, uri: str) -> bytes:
        """As :class:`maskdet.storage.stores.Store`."""
        bucket, key = bucket_and_key(uri)
        kept = self._reads.get()
        if kept.reads is None:
            return self._get(uri)
        with _credentials_told(uri, kept.anonymous_because):
            return kept.reads.get(bucket, key)

    def open(self, uri: str) -> BinaryIO:
        """As :class:`maskdet.storage.stores.Store`."""
        size = self.stat(uri).size_bytes
        return stores.ObjectStream.buffered(size, lambda start, end: self._get(uri, start=start, end=end - 1))

    def write(self, uri: str, data: bytes) -> None:
        """As :class:`maskdet.storage.stores.Store`: the end of the upload makes the object appear."""
        kind = "application/octet-stream"
        self._call(uri, lambda blob, request: blob.upload_from_string(data, content_type=kind, **request))

    def write_if(self, uri: str, expected: bytes | None, data: bytes) -> bool:
        """As :class:`maskdet.storage.stores.Store`: by the object's generation, which is 0 where there is none."""

        def write_if(blob: Any, request: dict[str, Any]) -> bool:
            found = blob.bucket.get_blob(blob.name, **request)
            if (found is None) != (expected is None):
                return False
            generation = 0 if found is None else found.generation
            if found is not None and found.download_as_bytes(if_generation_match=generation, **request) != expected:
                return False
            blob.upload_from_string(data, if_generation_match=generation, **request)
            return True

        try:
            return self._call(uri, write_if)
        except Exception as error:
            if status_of(error) == 412:  # another writer was first
                return False
            raise

    def stat(self, uri: str) -> StoredFile:
        """As :class:`maskdet.storage.stores.Store`."""
        found = self._call(uri, lambda blob, request: blob.bucket.get_blob(blob.name, **request))
        if found is None:
            raise NotFoundError(f"cannot look for {uri}: nothing exists there")
        return _stored_file(uri, found)

    def exists(self, uri: str) -> bool:
        """As :class:`maskdet.storage.stores.Store`."""
        return stores.has(self, uri)

    def delete(self, uri: str) -> None:
        """As :class:`maskdet.storage.stores.Store`."""
        self._call(uri, lambda blob, request: blob.delete(**request))

    def files(self, prefix: str) -> Iterator[StoredFile]:
        """As :class:`maskdet.storage.stores.Store`."""
        bucket, _ = bucket_and_key(prefix)
        token = None
        while True:
            try:
                page, following = persist(functools.partial(self._page, prefix, token))
            except Exception as error:
                if status_of(error) == 404 and token is None:  # no such bucket
                    return
                raise
            yield from (_stored_file(f"gs://{bucket}/{found.name}", found) for found in page)
            if following is None:
                return
            token = following

    def _page(self, prefix: str, token: str | None) -> tuple[list[Any], str | None]:
        def page(blob: Any, request: dict[str, Any]) -> tuple[list[Any], str | None]:
            listing = blob.client.list_blobs(
                blob.bucket, prefix=blob.name or None, page_token=token, fields=_FIELDS, **request
            )
            return list(next(listing.pages, ())), listing.next_page_token

        return self._call(prefix, page)

    def _get(self, uri: str, **part: int) -> bytes:
        # Raw: as stored, as Beam reads it. Where the server unpacks a text, a range of it would be a different range.
        def get(blob: Any, request: dict[str, Any]) -> bytes:
            data: bytes = blob.download_as_bytes(raw_download=True, **part, **request)
            return data

        return self._call(uri, get)

    def _call(self, uri: str, request: Callable[[Any, dict[str, Any]], T]) -> T:
        bucket, key = bucket_and_key(uri)
        access = self._access.get()
        timeouts = (stores.CONNECT_TIMEOUT_S, stores.READ_TIMEOUT_S)
        with _credentials_told(uri, access.anonymous_because):
            return request(access.client.bucket(bucket).blob(key), {"retry": None, "timeout": timeouts})


@contextlib.contextmanager
def _credentials_told(uri: str, anonymous_because: str) -> Iterator[None]:
    """Turn what fails inside for lack of credentials into an error that says so."""
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except Exception as error:
        unusable = isinstance(error, GoogleAuthError) and not error.retryable
        if not unusable and not (anonymous_because and status_of(error) in (401, 403)):
            raise
        reason = anonymous_because or " ".join(str(error).split()).rstrip(".")
        raise AccessDeniedError(f"cannot reach {uri}: {reason}. {_REMEDY}") from error


def _stored_file(uri: str, blob: Any) -> StoredFile:
    return StoredFile(uri, blob.size, f"{blob.size}-{blob.generation}")


def _make_access(options: PipelineOptions) -> _Access:
    from apache_beam.io.gcp.gcsio import create_storage_client
    from google.cloud.storage import Client

    emulated = bool(os.environ.get("STORAGE_EMULATOR_HOST"))  # must not see anyone's credentials
    chosen = options.view_as(GoogleCloudOptions)
    because = "" if chosen.no_auth or emulated else missing_credentials(tuple(chosen.gcp_oauth_scopes or ()))
    if chosen.no_auth or emulated or because:
        return _Access(Client.create_anonymous_client(), because)
    return _Access(create_storage_client(options), "")


def _make_reads(options: PipelineOptions) -> _KeptReads:
    access = _make_access(options)
    reads = Reads.of(access.client) if are_direct(access.client.api_endpoint) else None
    return _KeptReads(reads, access.anonymous_because)


@functools.cache
def missing_credentials(scopes: tuple[str, ...]) -> str:
    """Why this process has no Google credentials; empty if it has some.

    Looks where Google's library looks, but asks a metadata server only where one answers at once.
    """
    import google.auth
    from google.auth import _cloud_sdk

    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    login = Path(_cloud_sdk.get_application_default_credentials_path())  # type: ignore[no-untyped-call]
    if not named and not login.is_file() and not _on_google():
        return (
            "no Google credentials were found: GOOGLE_APPLICATION_CREDENTIALS is not set, "
            f"{login} does not exist, and no metadata server answers"
        )
    try:
        google.auth.default(scopes=list(scopes))
    except google.auth.exceptions.GoogleAuthError as error:
        return f"the Google credentials cannot be used: {' '.join(str(error).split()).rstrip('.')}"
    return ""


def _on_google() -> bool:
    """Whether this machine is one of Google's, whose metadata server gives credentials."""
    if os.environ.get("NO_GCE_CHECK") == "true":
        return False
    try:
        if _PRODUCT_NAME.read_text().startswith("Google"):
            return True  # without asking: the server of a fresh Kubernetes pod may take seconds
    except OSError:
        pass
    host = os.environ.get("GCE_METADATA_IP") or os.environ.get("GCE_METADATA_HOST") or "169.254.169.254"
    connection = http.client.HTTPConnection(host, timeout=METADATA_DEADLINE_S)
    try:
        connection.request("GET", "/", headers={"Metadata-Flavor": "Google"})
        return connection.getresponse().headers.get("Metadata-Flavor") == "Google"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
