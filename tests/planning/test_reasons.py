"""What an exception says is never empty, and always one line."""

import pytest

from harness.validation import reason, reason_of_kind


def raised(error):
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "said", "of_kind"),
    [
        (ValueError("not\n  this"), "not this", "ValueError: not this"),
        (KeyError("name"), "KeyError: 'name'", "KeyError: 'name'"),
        (TimeoutError(), "TimeoutError", "TimeoutError"),
        (ValueError(" \n"), "ValueError", "ValueError"),
        (
            OSError(2, "No such file", "x"),
            "[Errno 2] No such file: 'x'",
            "FileNotFoundError: [Errno 2] No such file: 'x'",
        ),
    ],
)
def test_what_an_exception_says(error, said, of_kind):
    for one in (error, raised(error)):
        assert reason(one) == said
        assert reason_of_kind(one) == of_kind


def test_a_bare_assertion_is_told_by_its_line():
    def checked(width):
        assert width % 4 == 0

    with pytest.raises(AssertionError) as caught:
        checked(3)
    caught.value.args = ()  # pytest writes a message of its own
    assert reason(caught.value) == "AssertionError at assert width % 4 == 0 in checked"
