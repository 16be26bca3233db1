"""Replaces names of images by keyed hashes, so that tables do not say who or where somebody is (``privacy.uri: hmac``).

The same name and key give the same hash, so outputs can still grow, and outputs made with one key can be joined.
Whoever has the key can tell whether a name that they know is in a table; without it, nobody can. Each worker that lists
images reads the key itself; only its fingerprint is sent and stored, so that no output is made with two keys.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path

from maskdet import storage
from maskdet.errors import ConfigError, FailureCode, MaskdetError
from maskdet.inputs.references import HIDDEN, ImageRef, RefBatch
from maskdet.sections import PrivacySettings

WITHHELD = "withheld, since it may hold the image's name (privacy.uri)"

_FEWEST_KEY_BYTES = 16
_HASH_DIGITS = 32  # 128 bits: no two of a thousand million images share one by chance
_FINGERPRINT_OF = b"fingerprint of a key of maskdet's privacy.uri"
_MAKE_ONE = "Make one with: openssl rand -hex 32. Keep it: without it the output cannot grow."
_SEE = "To see more, try --dry-run with plain names, where they may be seen."
# Failures whose messages are all our own words, so they hold no name.
_PLAIN = frozenset(
    (
        FailureCode.NOT_FOUND,
        FailureCode.ACCESS_DENIED,
        FailureCode.NOT_A_FILE,
        FailureCode.EMPTY_FILE,
        FailureCode.TOO_MANY_BYTES,
    )
)


@dataclass(frozen=True)
class Pseudonyms:
    """Replaces names of images by hashes.

    Attributes:
        key_from: where each process finds the key: ``env:NAME`` or ``file:PATH``.
        fingerprint: of the key.
    """

    key_from: str
    fingerprint: str

    @classmethod
    def of(cls, settings: PrivacySettings) -> Pseudonyms | None:
        """A run's pseudonyms; ``None`` where its settings keep names.

        Raises:
            ConfigError: there is no key, or it is too short.
        """
        if settings.uri == "plain":
            return None
        storage.withhold_names()
        return cls(settings.uri_key, _fingerprint(_read_key(settings.uri_key)))

    def hide(self, batch: RefBatch) -> RefBatch:
        """The batch with hashes for names; each reference keeps the location of its image.

        Raises:
            ConfigError: this process finds no key, or a different one from that with which the run began.
        """
        key = self._key()
        return RefBatch(tuple(_hidden(ref, key) for ref in batch.refs), batch.skipped)

    def _key(self) -> bytes:
        key = _read_key(self.key_from)
        if _fingerprint(key) != self.fingerprint:
            raise ConfigError(
                f"privacy.uri_key {self.key_from}",
                f"the key with which the run began, of fingerprint {self.fingerprint}",
                _fingerprint(key),
                "Give every worker the same key.",
            )
        storage.withhold_names()
        return key


def told(ref: ImageRef, code: FailureCode, message: str) -> str:
    """A failure's message, or :data:`WITHHELD` where it may hold a name that is to be hidden."""
    if ref.location is None or code in _PLAIN or code.stage not in ("list", "fetch"):
        return message
    return WITHHELD


def without_names(error: MaskdetError) -> MaskdetError:
    """An error of listing, without what it received and without locations."""
    what = error.what if error.what.startswith(("source.", "privacy.", "--")) else "listing the input"
    remedy = _SEE if "/" in error.remedy else error.remedy
    return type(error)(what, error.expected or "no fault", WITHHELD, remedy)


def _hidden(ref: ImageRef, key: bytes) -> ImageRef:
    problem = None if ref.problem is None else (ref.problem[0], WITHHELD)
    return ref._replace(uri=_name(ref.uri, key), location=ref.uri, problem=problem)


def _name(uri: str, key: bytes) -> str:
    digest = hmac.digest(key, uri.encode("utf-8", "surrogatepass"), "sha256")
    return HIDDEN + digest.hex()[:_HASH_DIGITS]


def _fingerprint(key: bytes) -> str:
    return hmac.digest(key, _FINGERPRINT_OF, hashlib.sha256).hex()[:16]


def _read_key(key_from: str) -> bytes:
    kind, _, name = key_from.partition(":")
    try:
        key = os.environ[name].encode() if kind == "env" else Path(name).read_bytes()
    except KeyError:
        remedy = f"Set it where the run is started and on every worker. {_MAKE_ONE}"
        raise ConfigError("privacy.uri_key", f"a key in the environment variable {name}", "none", remedy) from None
    except OSError as error:
        raise ConfigError("privacy.uri_key", f"a key in the file {name}", type(error).__name__, _MAKE_ONE) from None
    key = key.strip()
    if len(key) < _FEWEST_KEY_BYTES:
        raise ConfigError(
            "privacy.uri_key", f"a key of at least {_FEWEST_KEY_BYTES} bytes", f"{len(key)} bytes", _MAKE_ONE
        )
    return key
