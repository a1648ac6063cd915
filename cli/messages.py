"""Protobuf messages as plain Python values for tables and JSON.

Names are snake_case, 64-bit integers are numbers, enum words are short and lower case
(`ASSOCIATION_STATE_APPROVED` is "approved"), times are RFC 3339 in UTC, an unset message or time
is None, a Struct is its mapping by sorted names with whole numbers as such, bytes are base64.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

_MESSAGE, _ENUM, _BYTES = (
    FieldDescriptor.TYPE_MESSAGE,
    FieldDescriptor.TYPE_ENUM,
    FieldDescriptor.TYPE_BYTES,
)


def plain(message: Message) -> dict[str, Any]:
    """Every field of a message by its name, the unset ones too."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def word(enum: EnumDescriptor, number: int) -> str | None:
    """The short word of an enum's value; None for unspecified."""
    if number == 0:
        return None
    value = enum.values_by_number.get(number)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return value.name.removeprefix(prefix).lower() if value else str(number)


def words(enum: EnumDescriptor) -> list[str]:
    """The short words of an enum, for options that take one."""
    return [str(word(enum, value.number)) for value in enum.values if value.number]


def number(enum: EnumDescriptor, short: str) -> int:
    """The value of an enum whose short word is given; 0 for ""."""
    return next((v.number for v in enum.values if word(enum, v.number) == short), 0)


def _field(message: Message, field: Any) -> Any:
    if field.is_repeated:
        values = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            return {key: _value(values[key], inner) for key in sorted(values)}
        return [_value(value, field) for value in values]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(getattr(message, field.name), field)


def _value(value: Any, field: Any) -> Any:
    if field.type == _ENUM:
        return word(field.enum_type, value)
    if field.type == _BYTES:
        return base64.b64encode(value).decode()
    if field.type != _MESSAGE:
        return value
    full_name = field.message_type.full_name
    if full_name == "google.protobuf.Timestamp":
        return value.ToJsonString()
    if full_name == "google.protobuf.Struct":
        return _mapping(value)
    return plain(value)


def _mapping(struct: Any) -> dict[str, Any]:
    """A google.protobuf.Struct, whose own order is that of hashes."""
    return {key: _json(struct.fields[key]) for key in sorted(struct.fields)}


def _json(value: Any) -> Any:
    """A google.protobuf.Value."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _mapping(value.struct_value)
    if kind == "list_value":
        return [_json(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return None if kind in (None, "null_value") else getattr(value, kind)
