"""Names of the options that delta-rs takes for a store; it passes over others without a word.

The lists are those of deltalake 1.6: ``ClientConfigKey``, ``AmazonS3ConfigKey`` and ``GoogleConfigKey`` of the crate
object_store 0.13 (https://docs.rs/object_store/0.13.2), and the constants of the crates deltalake-aws and
deltalake-core. Case does not matter.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from maskdet.errors import ConfigError
from maskdet.storage.names import scheme_of

_CLIENT = [
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_max_frame_size",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "timeout",
    "user_agent",
]
"""Of the HTTP client, with the store's prefix or without."""
_S3 = [
    "access_key_id",
    "bucket",
    "bucket_name",
    "checksum_algorithm",
    "conditional_put",
    "container_authorization_token_file",
    "container_credentials_full_uri",
    "container_credentials_relative_uri",
    "copy_if_not_exists",
    "default_region",
    "disable_tagging",
    "endpoint",
    "endpoint_url",
    "endpoint_url_sts",
    "imdsv1_fallback",
    "metadata_endpoint",
    "region",
    "request_payer",
    "role_arn",
    "role_session_name",
    "s3_express",
    "secret_access_key",
    "server_side_encryption",
    "session_token",
    "skip_signature",
    "sse_bucket_key_enabled",
    "sse_customer_key_base64",
    "sse_kms_key_id",
    "token",
    "unsigned_payload",
    "virtual_hosted_style_request",
    "web_identity_token_file",
]
_S3_OF_DELTA = [
    "aws_access_key_id_dynamodb",
    "aws_ec2_metadata_disabled",
    "aws_ec2_metadata_timeout",
    "aws_endpoint_url_dynamodb",
    "aws_force_credential_load",
    "aws_iam_role_arn",
    "aws_iam_role_session_name",
    "aws_profile",
    "aws_region_dynamodb",
    "aws_s3_addressing_style",
    "aws_s3_allow_unsafe_rename",
    "aws_s3_assume_role_arn",
    "aws_s3_get_internal_server_error_retries",
    "aws_s3_locking_provider",
    "aws_s3_pool_idle_timeout_seconds",
    "aws_s3_role_session_name",
    "aws_secret_access_key_dynamodb",
    "aws_session_token_dynamodb",
    "aws_sts_pool_idle_timeout_seconds",
    "delta_dynamo_billing_mode",
    "delta_dynamo_max_elapsed_request_time",
    "delta_dynamo_table_name",
]
_GS = [
    "application_credentials",
    "base_url",
    "bearer_token",
    "bucket",
    "bucket_name",
    "service_account",
    "service_account_key",
    "service_account_path",
    "skip_signature",
]
_ANY_STORE = [
    "backoff_config.base",
    "backoff_config.init_backoff",
    "backoff_config.max_backoff",
    "max_retries",
    "retry_timeout",
    "object_store_concurrency_limit",
]
"""Of tries and of concurrent requests, which delta-rs itself makes."""

_ALIKE = 0.8
"""Ratio of :class:`difflib.SequenceMatcher` from which a name is taken for another one, misspelt."""


def _with_prefix(prefix: str, names: Iterable[str]) -> list[str]:
    return [form for name in names for form in (prefix + name, name)]


_TAKEN = {
    "s3": frozenset([*_with_prefix("aws_", [*_S3, *_CLIENT]), *_S3_OF_DELTA, *_ANY_STORE]),
    "gs": frozenset([*_with_prefix("google_", [*_GS, *_CLIENT]), *_ANY_STORE]),
    "file": frozenset(["mount_allow_unsafe_rename"]),
}
"""Scheme → names. Other stores, such as HDFS, take names of their own systems' settings, which are not checked."""


def check_store_options(uri: str, names: Iterable[str]) -> None:
    """Refuse misspelt names of options, which delta-rs would ignore.

    A name that resembles none of these lists may be of a later version, and is left to delta-rs. A location on this
    machine takes one option only.

    Args:
        uri: the location.
        names: of the options.

    Raises:
        ConfigError: names the first that is wrong, and what was meant.
    """
    scheme = scheme_of(uri)
    taken = _TAKEN.get(scheme, frozenset())
    for name in names:
        near = difflib.get_close_matches(name.lower(), sorted(taken), n=1, cutoff=_ALIKE)
        if not taken or name.lower() in taken or (scheme != "file" and not near):
            continue
        kind = "a location on this machine" if scheme == "file" else f"{scheme}://"
        meant = "".join(near).upper() if name.isupper() else "".join(near)
        remedy = f"Did you mean {meant!r}?" if near else "Leave it out."
        raise ConfigError("--store-option", f"an option that delta-rs takes for {kind}", name, remedy)
