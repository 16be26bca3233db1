"""Amazon S3 and stores that speak its protocol, configured by Beam's ``--s3_…`` options.

Beam's own client is not used: it is made anew for every call (0.1 to 0.4 s), asks twice for every read, writes in three
requests, and waits minutes before it reports a store that fails.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions, S3Options

from maskdet.errors import AccessDeniedError
from maskdet.storage import stores
from maskdet.storage.connections import Connections, are_direct
from maskdet.storage.exchange import Answer
from maskdet.storage.faults import persist, status_of
from maskdet.storage.names import StoredFile, bucket_and_key
from maskdet.storage.s3_signing import UrlSigner

T = TypeVar("T")

# Idle connections kept open; more threads than this would open a new one for each request.
_CONNECTIONS = 64
_ERROR_CODE = re.compile(rb"<Code>([^<]+)</Code>")
_NO_CREDENTIALS = (
    "no AWS credentials were found: neither --s3_access_key_id and --s3_secret_access_key, nor in the environment, nor "
    "in ~/.aws, nor as a role of this machine. Give them in one of these ways"
)


class _Access(NamedTuple):
    """What requests are made with."""

    client: Any
    """A boto3 S3 client."""
    signer: UrlSigner


class S3Store:
    """As :class:`maskdet.storage.stores.Store`."""

    def __init__(self) -> None:
        self._access = stores.KeptClient(_make_access, shared=True)
        self._connections = stores.KeptClient(_make_connections, shared=True)

    def read(self, uri: str) -> bytes:
        """As :class:`maskdet.storage.stores.Store`."""
        connections = self._connections.get()
        if connections is None:
            return self._get(uri)

        def read(access: _Access, place: dict[str, str]) -> bytes:
            answer = connections.get(access.signer.url(place["Bucket"], place["Key"]), {})
            if answer.status != 200:
                raise _error(answer)
            return answer.data

        return self._call(uri, read)

    def open(self, uri: str) -> BinaryIO:
        """As :class:`maskdet.storage.stores.Store`."""
        size = self.stat(uri).size_bytes
        return stores.ObjectStream.buffered(size, lambda start, end: self._get(uri, Range=f"bytes={start}-{end - 1}"))

    def write(self, uri: str, data: bytes) -> None:
        """As :class:`maskdet.storage.stores.Store`: one request, whose end makes the object appear."""
        self._call(uri, lambda access, place: access.client.put_object(**place, Body=data))

    def write_if(self, uri: str, expected: bytes | None, data: bytes) -> bool:
        """As :class:`maskdet.storage.stores.Store`: by the object's entity tag."""

        def write_if(access: _Access, place: dict[str, str]) -> bool:
            condition = {"IfNoneMatch": "*"}
            if expected is not None:
                found = access.client.get_object(**place)
                with found["Body"] as body:
                    if body.read() != expected:
                        return False
                condition = {"IfMatch": found["ETag"]}
            access.client.put_object(**place, Body=data, **condition)
            return True

        try:
            return self._call(uri, write_if)
        except Exception as error:
            if status_of(error) in (404, 409, 412):  # gone; another writer is at work; another writer was first
                return False
            raise

    def stat(self, uri: str) -> StoredFile:
        """As :class:`maskdet.storage.stores.Store`."""
        found = self._call(uri, lambda access, place: access.client.head_object(**place))
        return _stored_file(uri, found["ContentLength"], found)

    def exists(self, uri: str) -> bool:
        """As :class:`maskdet.storage.stores.Store`."""
        return stores.has(self, uri)

    def delete(self, uri: str) -> None:
        """As :class:`maskdet.storage.stores.Store`."""
        self._call(uri, lambda access, place: access.client.delete_object(**place))

    def files(self, prefix: str) -> Iterator[StoredFile]:
        """As :class:`maskdet.storage.stores.Store`."""
        bucket, start = bucket_and_key(prefix)
        token = ""
        while True:
            more = {"ContinuationToken": token} if token else {}
            try:
                page = persist(functools.partial(self._list, prefix, Bucket=bucket, Prefix=start, **more))
            except Exception as error:
                if status_of(error) == 404 and not token:  # no such bucket
                    return
                raise
            for found in page.get("Contents", ()):
                yield _stored_file(f"s3://{bucket}/{found['Key']}", found["Size"], found)
            if not page.get("IsTruncated"):
                return
            token = page["NextContinuationToken"]

    def _list(self, uri: str, **request: str) -> dict[str, Any]:
        return self._call(uri, lambda access, place: access.client.list_objects_v2(**request))

    def _get(self, uri: str, **part: str) -> bytes:
        def get(access: _Access, place: dict[str, str]) -> bytes:
            with access.client.get_object(**place, **part)["Body"] as body:
                data: bytes = body.read()
            return data

        return self._call(uri, get)

    def _call(self, uri: str, request: Callable[[_Access, dict[str, str]], T]) -> T:
        bucket, key = bucket_and_key(uri)
        from botocore.exceptions import NoCredentialsError, PartialCredentialsError

        try:
            return request(self._access.get(), {"Bucket": bucket, "Key": key})
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise AccessDeniedError(f"cannot reach {uri}: {_NO_CREDENTIALS}") from error


def _error(answer: Answer) -> Exception:
    """What the library raises for an answer that is not an object."""
    from botocore.exceptions import ClientError

    code = _ERROR_CODE.search(answer.data)
    error = {"Code": code[1].decode() if code else str(answer.status)}
    said: Exception = ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": answer.status}}, "GetObject")
    return said


def _make_connections(options: PipelineOptions) -> Connections | None:
    """Connections for reads; ``None`` where the library has to make them."""
    chosen = options.view_as(S3Options)
    by_library = chosen.s3_verify is not None or not are_direct(chosen.s3_endpoint_url or "https://s3.amazonaws.com")
    return None if by_library else Connections(("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"))


def _stored_file(uri: str, size_bytes: int, found: dict[str, Any]) -> StoredFile:
    tag = found["ETag"].strip('"')
    return StoredFile(uri, size_bytes, f"{size_bytes}-{found['LastModified'].timestamp():.6f}-{tag}")


def _make_access(options: PipelineOptions) -> _Access:
    import boto3
    from botocore.config import Config

    chosen = options.view_as(S3Options)
    session = boto3.session.Session(
        aws_access_key_id=chosen.s3_access_key_id,
        aws_secret_access_key=chosen.s3_secret_access_key,
        aws_session_token=chosen.s3_session_token,
    )
    client = session.client(
        "s3",
        region_name=chosen.s3_region_name,
        api_version=chosen.s3_api_version,
        use_ssl=not chosen.s3_disable_ssl,
        verify=chosen.s3_verify,
        endpoint_url=chosen.s3_endpoint_url,
        config=Config(
            connect_timeout=stores.CONNECT_TIMEOUT_S,
            read_timeout=stores.READ_TIMEOUT_S,
            max_pool_connections=_CONNECTIONS,
            signature_version="s3v4",
            retries={"mode": "standard", "total_max_attempts": 1},  # `persist` and the fetcher try again
        ),
    )
    return _Access(client, UrlSigner(client, session.get_credentials()))
