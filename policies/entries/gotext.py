"""Texts as Go prints them: quoted strings, decoded JSON values, lists of errors, the errors of its parsers.

Consul's error texts are made of these; comparing ours with the server's to the letter needs the same printing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from decimal import Decimal

from policies.errors import EntryError

_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\"}
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_EXPONENT_FROM, _EXPONENT_BELOW = 6, 4
_PREFIXES = {"0x": 16, "0b": 2, "0o": 8}


def quote(text: str) -> str:
    """Return the text as `%q` prints it."""
    return '"' + "".join(_quoted(character) for character in text) + '"'


def _quoted(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character == '"':
        return r"\""
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:  # noqa: PLR2004 - ASCII
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 - the basic plane


def plain(value: object) -> str:
    """Return a decoded JSON value as `%v` prints it."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case dict():
            return "map[" + " ".join(f"{key}:{plain(value[key])}" for key in sorted(value)) + "]"
        case list():
            return "[" + " ".join(plain(element) for element in value) + "]"
        case int() | float():
            return _shortest(float(value))
        case _:
            return str(value)


def _shortest(value: float) -> str:
    """Return the number as `%v` prints it: with an exponent from six digits before the point on."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    power = len(digits) + int(exponent) - 1
    if -_EXPONENT_BELOW <= power < _EXPONENT_FROM:
        return number_text(value)
    mantissa = "".join(map(str, digits))
    point = "." if len(mantissa) > 1 else ""
    return f"{'-' if sign else ''}{mantissa[0]}{point}{mantissa[1:]}e{power:+03d}"


def number_text(value: float) -> str:
    """Return the shortest decimal of the number, never with an exponent."""
    if value == int(value):
        return str(int(value))
    text = repr(value)
    if "e" not in text:
        return text
    mantissa, _, exponent = text.partition("e")
    digits = len(mantissa.partition(".")[2]) - int(exponent)
    return f"{value:.{max(digits, 0)}f}"


def kind_of(value: object) -> str:
    """Return the kind of a decoded JSON value in Go."""
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "float64"
        case str():
            return "string"
        case list():
            return "slice"
        case _:
            return "map"


def type_of(value: object) -> str:
    """Return the type of a decoded JSON value in Go."""
    return {"slice": "[]interface {}", "map": "map[string]interface {}"}.get(kind_of(value), kind_of(value))


def several(errors: Sequence[str]) -> str:
    """Return the text of a list of errors, as Consul joins them."""
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    return f"{count} occurred:\n\t" + "\n\t".join(f"* {error}" for error in errors) + "\n\n"


def parse_flag(text: str) -> bool:
    """Return a boolean by `strconv.ParseBool`, or raise EntryError with its text. "" is false."""
    if text in _TRUE:
        return True
    if text in _FALSE or not text:
        return False
    raise EntryError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def parse_whole(text: str, bits: int, *, signed: bool) -> int:
    """Return an integer by `strconv.ParseInt(text, 0, bits)` or ParseUint, or raise EntryError. "" is 0."""
    function = "strconv.ParseInt" if signed else "strconv.ParseUint"
    sign, digits = ("", text or "0")
    if signed and digits[0] in "+-":
        sign, digits = digits[0], digits[1:]
    value = _magnitude(digits)
    if value is None:
        raise EntryError(f"{function}: parsing {quote(text)}: invalid syntax")
    value = -value if sign == "-" else value
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not lowest <= value <= highest:
        raise EntryError(f"{function}: parsing {quote(text)}: value out of range")
    return value


def _magnitude(digits: str) -> int | None:
    """Return a literal of Go without its sign: 0x, 0b, 0o and a leading 0 choose the base, `_` may stand between."""
    base = _PREFIXES.get(digits[:2].lower(), 8 if digits.startswith("0") and len(digits) > 1 else 10)
    body = digits[2:].removeprefix("_") if digits[:2].lower() in _PREFIXES else digits
    parts = body.split("_")
    if not body.isascii() or not all(part.isalnum() for part in parts):
        return None
    try:
        return int("".join(parts), base)
    except ValueError:
        return None


def parse_fraction(text: str) -> float:
    """Return a float by `strconv.ParseFloat(text, 32)`, or raise EntryError. "" is 0."""
    try:
        value = float("x" if text.strip() != text else text or "0")
    except ValueError:
        raise EntryError(f"strconv.ParseFloat: parsing {quote(text)}: invalid syntax") from None
    if math.isinf(single(value)) and not math.isinf(value):
        raise EntryError(f"strconv.ParseFloat: parsing {quote(text)}: value out of range")
    return single(value)


def single(value: float) -> float:
    """Return the nearest 32-bit float."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def single_text(value: float) -> float:
    """Return the number whose shortest text is that of the 32-bit float: 33.33 for 33.330001831054688."""
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if single(short) == value:
            return int(short) if short == int(short) else short
    return value


def to_signed(value: float) -> int:
    """Return `int64(value)` as amd64 converts: towards zero, out of range the lowest."""
    lowest = -(1 << 63)
    if not math.isfinite(value) or not lowest <= math.trunc(value) < -lowest:
        return lowest
    return math.trunc(value)


def to_unsigned(value: float, bits: int) -> int:
    """Return `uint64(value)` cut to `bits`: a negative number wraps around."""
    half = 1 << 63
    whole = to_signed(value) if value < half else to_signed(value - half) | half
    return whole & ((1 << bits) - 1)
