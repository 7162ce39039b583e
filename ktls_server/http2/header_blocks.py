"""Header compression (RFC 7541): field blocks to fields and back, with `hpack`, and what makes it cheap.

- **Decoding.** The meaning of a block depends on the dynamic table, and hpack keeps that table: a block that changes it (a
  field with incremental indexing, a size update) is decoded by hpack, and clears what was remembered. Any other block
  has, until the next change, the one meaning: it is read here, straight from hpack's tables and its Huffman code, and
  remembered. What is unusual or wrong is left to hpack to judge.
- **Encoding.** Our dynamic table is never used: the first block of a connection sets its size to 0, and every field is an
  index into the static table or a literal without indexing. So the same fields give the same bytes, on any connection.

Fields that hold secrets are never remembered. In responses they go out as never indexed (RFC 7541 section 7.1.3).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, Generic, TypeAlias, TypeVar

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from ..semantics.dates import format_http_date
from .faults import ConnectionFault, ErrorCode

Field: TypeAlias = tuple[bytes, bytes]
_Meaning = TypeVar("_Meaning")

HEADER_TABLE_SIZE: Final = 4096
"""SETTINGS_HEADER_TABLE_SIZE in bytes: the initial value (RFC 9113 section 6.5.2), enough for a browser's fields."""

FIELD_OVERHEAD: Final = 32
"""What the size of a header list counts for each field besides its name and value (section 6.5.2)."""

SECRET_FIELDS: Final = frozenset(
    (b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"authentication-info")
)

CONNECTION_SPECIFIC_FIELDS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
"""Which no message may hold (section 8.2.2)."""

TABLE_SIZE_UPDATE_TO_ZERO: Final = b"\x20"
"""What stands before our first block. No later setting of the peer's can ask for less (RFC 7541 section 4.2)."""

INDEXED: Final = 0x80
WITH_INDEXING: Final = 0x40
SIZE_UPDATE: Final = 0x20
NEVER_INDEXED: Final = 0x10
"""First bits of a field's representation (RFC 7541 section 6); none of them is a literal without indexing."""


class HeaderDecoder(Generic[_Meaning]):
    """One connection's decoder. `_Meaning` is what the caller makes of a block's fields, kept by `remember`."""

    MAX_BLOCKS: Final = 32
    MAX_BLOCK_BYTES: Final = 512
    MAX_LIST_BYTES: Final = 2048
    """With browsers' 300 to 900 bytes of fields in mind; all that is kept for a connection has less than 80 KiB."""

    __slots__ = ("_decoder", "_known_blocks", "_max_list_bytes", "has_secret", "is_repeatable", "list_bytes")

    def __init__(self, max_list_bytes: int) -> None:
        self._decoder = Decoder(max_header_list_size=max_list_bytes)
        self._decoder.max_allowed_table_size = HEADER_TABLE_SIZE
        self._max_list_bytes = max_list_bytes
        self._known_blocks: dict[bytes, _Meaning] = {}
        self.is_repeatable = False
        """Whether the block that was decoded last may be given to `remember`."""
        self.has_secret = False
        """Whether a field of the block that was decoded last must not be kept anywhere."""
        self.list_bytes = 0
        """Size of the header list that was decoded last, as SETTINGS_MAX_HEADER_LIST_SIZE counts it."""

    def recall(self, block_untrusted: bytes) -> _Meaning | None:
        """What was remembered of this very block, as long as the table is what it was then."""
        return self._known_blocks.get(block_untrusted)

    def remember(self, block_untrusted: bytes, meaning: _Meaning) -> None:
        """Keep what was made of the block that was decoded last. Only for a block that `is_repeatable`."""
        assert self.is_repeatable
        known = self._known_blocks
        if len(known) >= self.MAX_BLOCKS:
            del known[next(iter(known))]
        known[block_untrusted] = meaning

    def forget(self) -> None:
        """Remember nothing: the table is about to change, or memory is to be saved."""
        self._known_blocks.clear()

    def decode(self, block_untrusted: bytes) -> Sequence[Field]:
        """The fields of a complete block, in order.

        Raises ConnectionFault: COMPRESSION_ERROR (section 4.3), or ENHANCE_YOUR_CALM for a list of more than
        `max_list_bytes`, after which the table is not what the peer thinks it is.
        """
        self.is_repeatable = False
        try:
            fields = self._decode_unchanging(block_untrusted)
            if fields is None:
                self.forget()
                decoded = self._decoder.decode(block_untrusted, raw=True)
                fields = [(name, value) for name, value in decoded]
                self.has_secret = any(not field.indexable or field[0] in SECRET_FIELDS for field in decoded)
                self.list_bytes = sum([len(name) + len(value) + FIELD_OVERHEAD for name, value in fields])
        except OversizedHeaderListError:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header list size") from None
        except HPACKError:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "hpack") from None
        return fields

    def _decode_unchanging(self, block: bytes) -> list[Field] | None:
        """The fields of a block that leaves the table alone. None for one that does not, is cut, or looks unusual."""
        fields: list[Field] = []
        position, end, size, has_secret = 0, len(block), 0, False
        field_at = self._decoder.header_table.get_by_index
        try:
            while position < end:
                first = block[position]
                position += 1
                if first & INDEXED:
                    if first == 0xFF:
                        return None  # an index of 127 and more: a table of very short fields
                    field = field_at(first & 0x7F)
                    name, value = field
                else:
                    if first & (WITH_INDEXING | SIZE_UPDATE):
                        return None
                    index = first & 0x0F
                    if index == 0x0F:
                        index, position = _read_rest(block, position, index)
                    if index:
                        name = field_at(index)[0]
                    else:
                        name, position = _read_string(block, position, is_secret=False)
                    is_secret = bool(first & NEVER_INDEXED) or name in SECRET_FIELDS
                    has_secret = has_secret or is_secret
                    value, position = _read_string(block, position, is_secret=is_secret)
                    field = name, value
                if name in SECRET_FIELDS:
                    has_secret = True
                fields.append(field)
                size += len(name) + len(value) + FIELD_OVERHEAD
                if size > self._max_list_bytes:
                    raise OversizedHeaderListError
        except IndexError:
            return None
        self.is_repeatable = not has_secret and end <= self.MAX_BLOCK_BYTES and size <= self.MAX_LIST_BYTES
        self.has_secret = has_secret
        self.list_bytes = size
        return fields


def _read_rest(block: bytes, position: int, prefix: int) -> tuple[int, int]:
    """The value of an integer whose prefix is full, and where it ends (RFC 7541 section 5.1).

    Raises IndexError where it is cut, or has more bytes than a size or an index needs.
    """
    value = prefix
    for shift in (0, 7, 14, 21):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise IndexError


def _read_string(block: bytes, position: int, *, is_secret: bool) -> tuple[bytes, int]:
    """A string, and where it ends (RFC 7541 section 5.2). Raises IndexError where it is cut, HPACKError for a wrong one."""
    first = block[position]
    length = first & 0x7F
    position += 1
    if length == 0x7F:
        length, position = _read_rest(block, position, length)
    end = position + length
    if end > len(block):
        raise IndexError
    string = block[position:end]
    if first < 0x80:
        return string, end
    if is_secret or length > _KEPT_STRING_BYTES:
        return decode_huffman(string), end
    return _decode_kept(string), end


_KEPT_STRING_BYTES: Final = 128

# What a string stands for in Huffman's code does not depend on any table. Together less than 512 KiB.
_decode_kept = lru_cache(maxsize=1024)(decode_huffman)


# Responses

_huffman: Final = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

_INDEX_OF_FIELD: Final = {field: index for index, field in enumerate(HeaderTable.STATIC_TABLE, 1)}
_INDEX_OF_NAME: Final = {
    name: index for index, (name, _) in reversed(tuple(enumerate(HeaderTable.STATIC_TABLE, 1)))
}  # the lowest index of a name is the last to be put in


def encode_field(name: bytes, value: bytes) -> bytes:
    """One field as an index into the static table, or as a literal that is not indexed. The name is made lower case."""
    name = name.lower()
    if name in SECRET_FIELDS:
        return _encode_literal(name, value, NEVER_INDEXED)
    index = _INDEX_OF_FIELD.get((name, value))
    if index is not None:
        return bytes((INDEXED | index,))
    return _encode_literal(name, value, 0)


def encode_fields(fields: Iterable[Field]) -> bytes:
    """A whole block of fields, without those that belong to a connection of HTTP/1.1 (section 8.2.2)."""
    return b"".join([_encoded(name, value) for name, value in fields if name.lower() not in CONNECTION_SPECIFIC_FIELDS])


def _encode_literal(name: bytes, value: bytes, first_bits: int) -> bytes:
    index = _INDEX_OF_NAME.get(name)
    if index is None:
        return bytes((first_bits,)) + _encode_string(name) + _encode_string(value)
    prefix = encode_integer(index, 4)
    prefix[0] |= first_bits
    return bytes(prefix) + _encode_string(value)


def _encode_string(string: bytes) -> bytes:
    packed = _huffman.encode(string)
    if len(packed) < len(string):
        length = encode_integer(len(packed), 7)
        length[0] |= 0x80
        return bytes(length) + packed
    return bytes(encode_integer(len(string), 7)) + string


_KEPT_FIELD_BYTES: Final = 256

# A site has few different fields but for validators, dates and lengths; together less than 1 MiB.
_encode_kept = lru_cache(maxsize=1024)(encode_field)


def _encoded(name: bytes, value: bytes) -> bytes:
    if len(value) > _KEPT_FIELD_BYTES or name.lower() in SECRET_FIELDS:
        return encode_field(name, value)
    return _encode_kept(name, value)


class ResponseHeads:
    """Encodes the heads of responses. One per process: a head's bytes are the same on every connection.

    `common` is what every response has besides `date`. The least recently used head goes first.
    """

    MAX_HEADS: Final = 1024
    MAX_HEAD_BYTES: Final = 1024
    """Together at most some 4 MiB, for as many different answers as a busy folder has."""

    __slots__ = ("_common", "_date", "_heads", "_second")

    def __init__(self, common: Iterable[Field] = ()) -> None:
        self._common = encode_fields(common)
        self._heads: OrderedDict[tuple[int, int | None, tuple[Field, ...]], bytes] = OrderedDict()
        self._second = -1
        self._date = b""

    def date(self, second: int) -> bytes:
        """The `date` field, encoded. `second` is the time since the epoch."""
        if second != self._second:
            self._second = second
            self._date = encode_field(b"date", format_http_date(second))
        return self._date

    def head(self, status: int, fields: Iterable[Field], content_length: int | None, second: int) -> bytes:
        """The field block of a response that was made at `second`, with `date` and `content-length` (not where it is None)."""
        key = status, content_length, tuple(fields)
        head = self._heads.get(key)
        if head is not None:
            self._heads.move_to_end(key)
            return head + self.date(second)
        head = _encoded(b":status", b"%d" % status) + self._common + encode_fields(key[2])
        if content_length is not None:
            head += encode_field(b"content-length", b"%d" % content_length)
        if len(head) <= self.MAX_HEAD_BYTES and not any(name.lower() in SECRET_FIELDS for name, _ in key[2]):
            self._heads[key] = head
            if len(self._heads) > self.MAX_HEADS:
                self._heads.popitem(last=False)
        return head + self.date(second)
