"""Values held to annotated types and bounds: pydantic finds what is wrong, and one line says it in our own words.

The line names key, bound and value: `epochs must be at least 1, got 0`. What is wrong in several places is gathered
(`Faults`) and said at once. pydantic itself is imported when the first value is checked, so that the command's help
does without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import inspect
import re
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar, Union

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails

T = TypeVar("T")
P = ParamSpec("P")
SHOWN_CHARACTERS = 200
"""characters of a refused value that an error shows at most"""
SHOWN_NAMES = 20
"""names that an error lists at most"""
NEAREST = 8
"""names that an error offers at most in place of one that is cut short"""


class ConfigError(ValueError):
    """Bad input: a line for every fault, naming key, bound and value; where there are several, a line that counts them
    stands before them."""

    def __init__(self, *faults: str) -> None:
        super().__init__(*dict.fromkeys(faults))

    @property
    def faults(self) -> tuple[str, ...]:
        """The lines, none of them twice."""
        return self.args

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return self.faults[0]
        return "\n  ".join([f"{len(self.faults)} things to change:", *self.faults])


class Faults:
    """Gathers what is wrong in several places, so that all of it is said at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.lines)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Note what a ConfigError in the block says, which ends there, and go on after the block."""
        try:
            yield
        except ConfigError as error:
            self.lines += error.faults

    def tried(self, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What a function returns; None where it raises a ConfigError, whose lines are noted."""
        try:
            return make(*args, **kwargs)
        except ConfigError as error:
            self.lines += error.faults
            return None

    def check(self) -> None:
        """ConfigError with all lines, if there are any."""
        if self.lines:
            raise ConfigError(*self.lines)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; nearest: a, b` for an error that rejects `name`, or the first of the known names where none is near.

    First those that begin with it (`cmd` stands for all methods of CMD) or, of dotted keys, end with it as a part, the
    shortest first; then those of similar letters.
    """
    known, small = sorted(set(known)), name.lower()
    meant = [k for k in known if small and (k.lower().startswith(small) or k.lower().endswith(f".{small}"))]
    meant = sorted(meant, key=len)[:NEAREST]
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    close = list(dict.fromkeys([*meant, *similar]))[: max(3, len(meant))]
    if close:
        return f"; nearest: {', '.join(close)}"
    more = f" and {len(known) - SHOWN_NAMES} more" if len(known) > SHOWN_NAMES else ""
    return f"; one of: {', '.join(known[:SHOWN_NAMES])}{more}"


def shown(value: Any) -> str:
    """A value for an error: Python's own notation on one line, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def printable(text: object) -> str:
    """A path, or another text, on one line that every file and terminal takes.

    Line breaks and other characters that do not print are escaped, and so are bytes of a file's name that are no
    UTF-8: `caf\\xe9`.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(text))


LONGEST_NAME = 100
"""characters of a model's, data set's, optimizer's, method's or table's name"""
SEEN = r"^[^\p{C}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0]*$"
"""a text of characters that can be seen, as pydantic's own expressions have it"""
_UNSEEN = re.compile(r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""characters that Unicode counts among those that print, and that take no room"""


def plain_text(text: str) -> str:
    """The text where all of its characters can be seen, which those that turn its direction around cannot, and none
    breaks its line; ValueError otherwise."""
    if not text.isprintable() or _UNSEEN.search(text):
        raise ValueError("text of characters that can be seen")
    return text


@functools.lru_cache(maxsize=4096)
def as_name(text: str) -> str:
    """The text where it can be a part of a file's name: ValueError where it is empty, too long or begins with a dot, or
    where it has a separator of folders or a character that cannot be seen."""
    try:
        fits = 0 < len(plain_text(text)) <= LONGEST_NAME and not text.startswith(".") and not {"/", "\\"} & {*text}
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"a name of 1 to {LONGEST_NAME} characters that can be seen, without / and \\ and no dot at its beginning"
        )
    return text


def seen(text: str) -> str:
    """A text of any lines, in which characters that cannot be seen are escaped."""
    if text.isprintable() and not _UNSEEN.search(text):
        return text
    return "\n".join(printable(_UNSEEN.sub(lambda found: _escaped(found[0]), line)) for line in text.split("\n"))


def in_utf8(text: str) -> str:
    """A text, of any lines, in which bytes of file names that are no UTF-8 are escaped, as files and pages need it."""
    return re.sub("[\ud800-\udfff]", lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    code = ord(character)
    # Python reads a name's byte 0xe9 that is no UTF-8 as U+DCE9
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()


def reason(error: BaseException) -> str:
    """What an exception says, on one line; its kind too where that alone says little, and where it says nothing at all
    the assertion that it failed at, if there is one. Never empty."""
    text = " ".join(str(error).split())
    if text:
        return f"{type(error).__name__}: {text}" if isinstance(error, KeyError) else text
    passed = [frame for frame in traceback.extract_tb(error.__traceback__) if "assert" in (frame.line or "")]
    where = f" at {passed[-1].line} in {passed[-1].name}" if passed else ""
    return f"{type(error).__name__}{where}"


def reason_of_kind(error: BaseException) -> str:
    """As `reason`, the kind of the exception always first."""
    kind, said = type(error).__name__, reason(error)
    return said if said.startswith(kind) else f"{kind}: {said}"


def check_choice(key: str, value: Any, choices: Iterable[Any]) -> None:
    """ConfigError where `value` is none of `choices`."""
    choices = tuple(choices)
    if value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(map(str, choices))}, got {shown(value)}")


def validated(key: str, kind: Any, value: Any) -> Any:
    """The value as an annotated type has it; ConfigError where it has another type or is out of bounds.

    Nothing is converted on the way, but for what the type itself declares (`BeforeValidator`): no text becomes a
    number, no true or false becomes 1 or 0. Numbers must be finite.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError(refusal(key, value, error)) from None


_QUOTED = re.compile(r"""(['"])((?:\\.|(?!\1)[^\\])*)\1""", re.S)
_LIST = re.compile(r"""\[([^\[\]{}'"]*)\]""", re.S)
_WORDS: dict[str, Any] = {"null": None, "true": True, "false": False}


def as_given(key: str, kind: Any, text: str) -> Any:
    """The value of an argument `key=text` where its annotated type takes text: all of the text as it is.

    Quotes around all of it are taken off, `null`, `true` and `false` stand for themselves where the type has these, and
    `[a b, c: d]` is a list where it has a list of texts. ConfigError where it takes no such text.
    """
    if quoted := _QUOTED.fullmatch(text):
        return validated(key, kind, re.sub(rf"\\({quoted[1]}|\\$)", r"\1", quoted[2]))
    if text.lower() in _WORDS:
        try:
            return validated(key, kind, _WORDS[text.lower()])
        except ConfigError:
            if text.lower() == "null":
                raise
    if listed := _LIST.fullmatch(text):
        with contextlib.suppress(ConfigError):
            return validated(key, kind, [one.strip() for one in listed[1].split(",")] if listed[1].strip() else [])
    return validated(key, kind, text)


class Validated:
    """A dataclass, frozen, that holds its fields to their annotations whenever one is made, from a file or in code."""

    def __post_init__(self) -> None:
        faults = Faults()
        for name, kind in field_types(type(self)).items():
            with faults.gathered():
                object.__setattr__(self, name, validated(self.key(name), kind, getattr(self, name)))
        faults.check()
        self.check()

    def key(self, name: str) -> str:
        """The configuration key of a field, for errors."""
        return name

    def check(self) -> None:
        """ConfigError where fields that are right in themselves do not go together."""


def from_mapping(cls: type[T], key: str, values: Any, **given: Any) -> T:
    """The dataclass `cls` from a composed mapping at `key`, the empty key being the top level.

    `given` are fields that come from code. ConfigError, with all that is wrong, where keys are unknown or missing or
    values are refused.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key} must be a mapping, got {shown(values)}")
    kinds = {name: kind for name, kind in field_types(cls).items() if name not in given}
    faults, fields = Faults(), {}
    with faults.gathered():
        check_names(key, values, kinds)
    parameters = inspect.signature(cls).parameters.values()
    for name in (p.name for p in parameters if p.default is p.empty and p.name in kinds):
        if name not in values:
            faults.lines.append(f"{below(key, name)} must be given")
    for name in [name for name in values if name in kinds]:
        with faults.gathered():
            fields[name] = validated(below(key, name), kinds[name], values[name])
    faults.check()
    return cls(**fields, **given)


def too_long(values: Any, key: str = "") -> Iterator[str]:
    """A line for every whole number in a value at `key` that has more than 64 bits, which no table or file takes."""
    if isinstance(values, Mapping):
        for name, inner in values.items():
            yield from too_long(inner, below(key, name))
    elif isinstance(values, list | tuple):
        for index, inner in enumerate(values):
            yield from too_long(inner, f"{key}[{index}]")
    elif isinstance(values, int) and not -(2**63) <= values < 2**63:
        bound = f"below {2**63}" if values > 0 else f"at least {-(2**63)}"
        yield f"{key} must be {bound}, got {shown(values)}"


def check_names(key: str, values: Iterable[Any], known: Iterable[str]) -> None:
    """ConfigError where a mapping at `key` has keys that are none, with the nearest of those it may have."""
    known, faults = tuple(known), Faults()
    for name in values:
        if name not in known:
            refused = f"{key} has no key {shown(name)}" if key else f"no key named {shown(name)}"
            faults.lines.append(f"{refused}{nearest(str(name), known) if known else ''}")
    faults.check()


def below(key: str, name: object) -> str:
    """The key of what stands below another key; the empty one is the top level."""
    return f"{key}.{name}" if key else str(name)


def parameter_types(cls: type[Any]) -> dict[str, Any]:
    """The annotated type of every parameter that a class is made with, Any where it has none that can be found.

    A tuple may be given as a list, as YAML has none.
    """
    signature = inspect.signature(cls)
    try:
        hints = typing.get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__, include_extras=True)
    except (NameError, TypeError, AttributeError):  # names imported for type checkers only
        hints = {}
    return {name: _list_for_tuple(hints.get(name, Any)) for name in signature.parameters}


def check_parameter(key: str, kind: Any, value: Any) -> None:
    """ConfigError where a parameter has another type than the class behind it declares."""
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    try:
        validated(key, kind, value)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return  # a type that no value of a file has, which is for the class itself to judge


def _list_for_tuple(kind: Any) -> Any:
    from pydantic import Strict

    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return Union[tuple(_list_for_tuple(argument) for argument in arguments)]  # noqa: UP007  made at run time
    return Annotated[kind, Strict(False)] if kind is tuple or origin is tuple else kind


def field_types(cls: Any) -> dict[str, Any]:
    """The annotated types of a dataclass's fields, without those that are dataclasses, checked when they were made."""
    hints = _hints(cls)
    names = [one.name for one in dataclasses.fields(cls)]
    return {name: hints[name] for name in names if not dataclasses.is_dataclass(hints[name])}


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _adapter(kind: Any) -> TypeAdapter[Any]:
    try:
        return _cached_adapter(kind)
    except TypeError:  # a type that cannot be hashed
        return _new_adapter(kind)


def _new_adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True))


_cached_adapter = functools.cache(_new_adapter)


def refusal(key: str, value: Any, error: ValidationError) -> str:
    """One line for what pydantic found first, or furthest inside where a value may be of several types."""
    found = [(*_located(value, details["loc"]), details) for details in error.errors(include_url=False)]
    path, inner, _ = max(found, key=lambda one: len(one[0]))
    wanted = list(dict.fromkeys(_wanted(details) for where, _, details in found if where == path))
    numbers = {"a number", "a finite number"} & set(wanted)
    described = [phrase for phrase in wanted if phrase is not None and not (numbers and phrase == "a whole number")]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    line = f"{key}{place} must be {' or '.join(described) or 'another value'}, got {shown(inner)}"
    plain = not path and described == ["a list"] and re.fullmatch(r"[\w.+-]+", str(inner))
    return f"{line}: {key}=[{inner}]" if plain else line


def _located(value: Any, loc: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], Any]:
    """Where in a value pydantic's location points, and what is there; names of union branches are no places."""
    path: list[int | str] = []
    for part in loc:
        inside = isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        if inside or (isinstance(value, Mapping) and part in value):
            value = value[part]
            path.append(part)
    return tuple(path), value


_PHRASES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_unicode": "text in UTF-8",
    "list_type": "a list",
    "tuple_type": "a list",
    "sequence_str": "a list",
    "invalid-json-value": "what YAML can hold",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "mapping_type": "a mapping",
    "none_required": "null",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "string_too_short": "text of at least {min_length} character",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "a list of at least {min_length} value",
    "too_long": "a list of at most {max_length} values",
    "missing": "a list with as many values as are needed",
    "literal_error": "{expected}",
    "value_error": "{error}",
}


def _wanted(details: ErrorDetails) -> str | None:
    """What a value should have been, in our words; None for what no file can hold, such as a tensor."""
    kind, context = details["type"], details.get("ctx", {})
    if kind == "is_instance_of":
        return None
    if kind == "less_than" and context["lt"] == 1:
        return "a share below 1"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if kind == "string_pattern_mismatch":
        return (
            "text of characters that can be seen" if context["pattern"] == SEEN else "letters, digits, '.', '_' and '-'"
        )
    phrase = _PHRASES.get(kind)
    return details["msg"][:1].lower() + details["msg"][1:] if phrase is None else phrase.format(**context)
