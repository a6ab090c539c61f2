"""A multipart body with one file in it, taken apart as it comes: nothing is held whole."""

from collections.abc import Mapping
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from batchord.gateway.errors import ApiError, invalid

#: Fields beside the file, and the bytes of one.
_MOST_FIELDS: Final = 20
_MOST_FIELD: Final = 1024


class FileForm:
    """Parses chunks of a body: `data` has what has come of the file since it was last taken."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise ApiError(
                415 if kind != b"multipart/form-data" else 400,
                "Upload a file as multipart/form-data with a boundary: parts `purpose` and `file`",
            )
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.data = bytearray()
        self.ended = False
        self._header, self._value, self._disposition = bytearray(), bytearray(), b""
        self._name, self._is_file, self._field = "", False, bytearray()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_header,
                    "on_header_value": self._on_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._name_part,
                    "on_part_data": self._on_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise invalid(f"The multipart body is invalid: {error}") from None

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk of the body; ApiError (400) if it is not multipart."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise invalid(f"The multipart body is invalid: {error}") from None

    def take(self) -> bytes:
        """Return the bytes of the file that have come, and let go of them."""
        data = bytes(self.data)
        self.data.clear()
        return data

    def _begin(self) -> None:
        self._disposition, self._field = b"", bytearray()

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _name_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = _text(options, b"name") or ""
        self._is_file = self._name == "file"
        if self._is_file:
            if self.filename is not None:
                raise invalid("Upload one file at a time", "file")
            self.filename = _text(options, b"filename")
            if self.filename is None:
                what = (
                    "The part `file` has no filename: upload a file (curl: -F file=@PATH, with @)"
                )
                raise invalid(what, "file")
        elif len(self.fields) >= _MOST_FIELDS:
            raise invalid(f"A file has at most {_MOST_FIELDS} fields beside it")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        part = self.data if self._is_file else self._field
        part += data[start:end]
        if not self._is_file and len(self._field) > _MOST_FIELD:
            raise invalid(f"{self._name[:80]}: at most {_MOST_FIELD} bytes", self._name[:80])

    def _end_part(self) -> None:
        if not self._is_file:
            self.fields[self._name[:80]] = self._field.decode(errors="replace")

    def _end(self) -> None:
        self.ended = True


def _text(options: Mapping[bytes, bytes], name: bytes) -> str | None:
    found = options.get(name)
    return None if found is None else found.decode(errors="replace")
