"""Exit codes, failure codes, and finding a caller's mistake in a runner's exception."""

from __future__ import annotations

import pickle
import traceback

import pytest

from maskdet import errors
from maskdet.errors import (
    EXIT_CODES,
    AccessDeniedError,
    ConfigError,
    FailureCode,
    ImageFault,
    MaskdetError,
    NotFoundError,
    SourceError,
    Stage,
    StorageError,
    recover_error,
)


def subclasses(cls: type[MaskdetError]) -> list[type[MaskdetError]]:
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, cls)]
    assert MaskdetError in found
    return found


ALL_ERRORS = subclasses(MaskdetError)


def test_every_error_has_a_documented_exit_code() -> None:
    assert not [cls.__name__ for cls in ALL_ERRORS if not EXIT_CODES.get(cls.exit_code, "").strip()]


def test_every_exit_code_for_mistakes_belongs_to_an_error() -> None:
    assert {code for code in EXIT_CODES if code not in (0, 130, 143)} == {cls.exit_code for cls in ALL_ERRORS}


def test_finer_storage_errors_share_their_parents_exit_code() -> None:
    assert {StorageError.exit_code, NotFoundError.exit_code, AccessDeniedError.exit_code} == {5}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("only what"), "only what"),
        (ConfigError("key", "a number", "x"), "key: expected a number, received 'x'"),
        (ConfigError("key", "a number", None, "Give one."), "key: expected a number, received None. Give one."),
        (ConfigError("key", "", "ignored", "Ignored."), "key"),
    ],
)
def test_a_message_says_expected_received_and_remedy(error: MaskdetError, text: str) -> None:
    assert str(error) == text


def test_every_error_survives_pickling() -> None:
    parts = ("what", "expected", ["received"], "remedy")
    for cls in ALL_ERRORS:
        error = cls(*parts)
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is cls
        assert (copy.what, copy.expected, copy.received, copy.remedy) == parts, cls
        assert str(copy) == str(error)


def test_every_failure_code_has_a_stage() -> None:
    assert not [code for code in FailureCode if code.stage not in set(Stage)]


def test_every_stage_has_a_failure_code() -> None:
    assert {code.stage for code in FailureCode} == set(Stage)


def test_only_faults_of_stores_memory_and_runtimes_are_worth_another_try() -> None:
    transient = {"not_found", "read_error", "access_denied", "out_of_memory", "inference_error"}
    transient |= {"decode_timeout", "decoder_crashed"}
    assert {code.value for code in FailureCode if code.transient} == transient


def test_an_image_fault_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(ImageFault(FailureCode.EMPTY_FILE, "no bytes", 3)))
    assert (copy.code, copy.message, copy.attempts) == (FailureCode.EMPTY_FILE, "no bytes", 3)
    assert str(copy) == "empty_file: no bytes"


def annotated(error: MaskdetError, step: str) -> MaskdetError:
    """An error as Beam passes it on, with the step's name added to the first argument."""
    return type(error)(f"{error.args[0]} [while running {step!r}]", *error.args[1:])


def test_every_error_passed_on_by_a_runner_is_recovered_without_the_steps_name() -> None:
    for cls in ALL_ERRORS:
        error = cls("source.template", "every path to fit", "a/b", "Move it.")
        recovered = recover_error(annotated(annotated(error, "Score/ListImages/ListTasks"), "outer"))
        assert type(recovered) is cls
        assert recovered is not None
        assert recovered.args == error.args, cls
        assert str(recovered) == str(error)


def test_an_error_that_no_runner_touched_is_recovered_as_it_is() -> None:
    recovered = recover_error(NotFoundError("cannot read x: nothing exists there"))
    assert type(recovered) is NotFoundError
    assert str(recovered) == "cannot read x: nothing exists there"


def worker_traceback(error: MaskdetError) -> str:
    try:
        raise error
    except MaskdetError:
        return traceback.format_exc()


def test_an_error_is_recovered_from_the_text_of_a_workers_traceback() -> None:
    text = worker_traceback(annotated(SourceError("manifest m.csv: not readable"), "Score/ListTasks"))
    assert "maskdet.errors.SourceError: manifest m.csv: not readable [while running 'Score/ListTasks']" in text
    recovered = recover_error(RuntimeError(f"Pipeline failed in state FAILED: {text}"))
    assert type(recovered) is SourceError
    assert str(recovered) == "manifest m.csv: not readable"


def test_an_error_is_recovered_from_escaped_text_within_text() -> None:
    text = worker_traceback(AccessDeniedError("cannot list gs://b: access denied", "", None, ""))
    nested = repr(RuntimeError(f"bundle failed: {text}"))
    assert "\\n" in nested
    assert "\n" not in nested
    recovered = recover_error(RuntimeError(f"job failed: {nested}"))
    assert type(recovered) is AccessDeniedError
    assert str(recovered) == "cannot list gs://b: access denied"


def test_the_last_of_several_errors_in_a_chain_is_what_the_caller_sees() -> None:
    try:
        try:
            raise NotFoundError("cannot read m.csv: nothing exists there")
        except NotFoundError as cause:
            raise SourceError("manifest m.csv is gone") from cause
    except SourceError:
        text = traceback.format_exc()
    recovered = recover_error(RuntimeError(text))
    assert type(recovered) is SourceError
    assert str(recovered) == "manifest m.csv is gone"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("ValueError: wrong [while running 'Score/ListTasks']"),
        RuntimeError("maskdet.errors.NoSuchError: made up"),
        RuntimeError("maskdet.errors.ImageFault: empty_file: no bytes"),
        ValueError(),
        KeyboardInterrupt(),
    ],
)
def test_an_unrelated_error_is_not_taken_for_a_callers_mistake(error: BaseException) -> None:
    assert recover_error(error) is None
