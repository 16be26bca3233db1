"""Signed URLs are botocore's, character for character."""

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import NoCredentialsError
from hypothesis import given
from hypothesis import strategies as st

from maskdet.storage.s3_signing import UrlSigner, signed_url

ENDPOINTS = [None, "http://127.0.0.1:9000", "https://store.example:8443/base"]


def access(endpoint=None, token=None, addressing="auto", keys=("AKIA+/ID", "se/cret")):
    session = boto3.session.Session(*keys, aws_session_token=token)
    settings = Config(signature_version="s3v4", s3={"addressing_style": addressing})
    return session.client("s3", region_name="eu-west-3", endpoint_url=endpoint, config=settings), session


def library_url(client, bucket, key):
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
    signed_at = parse_qs(urlsplit(url).query)["X-Amz-Date"][0]
    return url, datetime.strptime(signed_at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("token", [None, "to/ken+=="])
@pytest.mark.parametrize("addressing", ["path", "virtual"])
def test_urls_are_the_librarys(endpoint, token, addressing):
    client, session = access(endpoint, token, addressing)
    signer = UrlSigner(client, session.get_credentials())
    found = signer._ask_library("bucket")
    assert found is not None
    for key in ("a.jpg", "a b/ü~é+&=?#.jpg", "/../x//y", "k"):
        expected, signed_at = library_url(client, "bucket", key)
        assert signed_url(found, key, signer._keys(), signed_at) == expected


KEPT = access(ENDPOINTS[1])  # one client for all examples


@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_key(key):
    client, session = KEPT
    signer = UrlSigner(client, session.get_credentials())
    expected, signed_at = library_url(client, "images", key)
    assert signed_url(signer._ask_library("images"), key, signer._keys(), signed_at) == expected


def test_what_the_library_signs_otherwise_stays_with_it(monkeypatch):
    client, session = access(ENDPOINTS[1])
    signer = UrlSigner(client, session.get_credentials())
    real = client.generate_presigned_url
    monkeypatch.setattr(client, "generate_presigned_url", lambda *args, **more: real(*args, **more) + "&extra=1")
    assert signer.url("images", "a.jpg").endswith("&extra=1")
    monkeypatch.setattr(client, "generate_presigned_url", real)
    assert "extra" not in signer.url("others", "a.jpg")


def test_credentials_are_asked_for_again_each_time():
    client, session = access(ENDPOINTS[1])
    credentials = session.get_credentials()
    signer = UrlSigner(client, credentials)
    before = signer.url("images", "a.jpg")
    credentials.access_key = "NEW"
    assert "X-Amz-Credential=NEW%2F" in signer.url("images", "a.jpg")
    assert "X-Amz-Credential=AKIA%2B%2FID%2F" in before


def test_without_credentials_the_library_says_so(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    client, session = access(ENDPOINTS[1], keys=())
    with pytest.raises(NoCredentialsError):
        UrlSigner(client, session.get_credentials()).url("images", "a.jpg")
