"""Text with a line for each row, in the dialects that spreadsheets and systems write. What the columns mean is the reader's concern."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from assets.errors import UserError

DELIMITERS = (",", ";", "\t", "|")
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # as spreadsheets put them first
LONGEST_FIELD = (1 << 31) - 1  # a picture in base64; csv's own limit is 128 KiB
QUOTES = 'Write a quotation mark inside a field twice (""), and quotation marks around that field.'
UNCLOSED = "a quotation mark opens a field there and is not closed before others begin"
CONVERT = "Save it as «CSV UTF-8», or convert it: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW."


def as_text(file: IO[bytes]) -> IO[str]:
    """UTF-8, or UTF-16 by its mark or by the zeros between its letters. A text that is neither fails when it is read. Closes `file`."""
    start = file.read(64)
    file.seek(0)
    encoding = next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
    if encoding is None and start[:16].count(0) > 2:  # every other byte of UTF-16 where letters are Latin; one zero alone is damage
        encoding = "utf-16-be" if start[0] == 0 else "utf-16-le"
    return io.TextIOWrapper(file, encoding=encoding or "utf-8", newline="")


def read_delimited(text: IO[str], wanted: Sequence[str]) -> tuple[list[str], Iterator[tuple[int, Mapping[str, str] | None]]]:
    """(the columns, (line number, row) for each row); None for a row with more or fewer fields than columns. Empty rows are left out.

    Between fields stands whichever of DELIMITERS splits the header into most of the columns `wanted`. A header that differs from one of
    these in case alone is called like it. Raises csv.Error and UnicodeDecodeError.
    """
    csv.field_size_limit(LONGEST_FIELD)
    first = text.readline()
    skipped = 1
    while first and (not first.strip() or (first.casefold().startswith("sep=") and len(first.strip()) == 5)):  # a spreadsheet's note
        first, skipped = text.readline(), skipped + 1
    dialects: dict[str, Any] = {  # some write a blank after each
        delimiter: {"delimiter": delimiter, "skipinitialspace": f'{delimiter} "' in first} for delimiter in DELIMITERS
    }
    headers = {delimiter: _names(next(csv.reader([first], **dialect), []), wanted) for delimiter, dialect in dialects.items()}
    delimiter = max(DELIMITERS, key=lambda each: (len(set(headers[each]) & set(wanted)), len(headers[each]), -DELIMITERS.index(each)))
    header = headers[delimiter]

    def rows() -> Iterator[tuple[int, Mapping[str, str] | None]]:
        reader = csv.reader(text, strict=True, **dialects[delimiter])
        for begun, row in _numbered(reader, skipped):
            if delimiter == "\t" and any("\n" in field and "\t" in field for field in row):
                raise csv.Error(f"line {begun}: {UNCLOSED}")
            fields = row[: len(header)] if not any(field.strip() for field in row[len(header) :]) else row
            if any(field.strip() for field in fields):
                yield reader.line_num + skipped, dict(zip(header, fields, strict=True)) if len(fields) == len(header) else None

    return header, rows()


def _numbered(reader: Any, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """(the line in which it begins, the row) of each row. csv.Error names the line and the way out."""
    while True:
        begun = reader.line_num + skipped + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise csv.Error(f"line {begun}: {UNCLOSED if reader.line_num + skipped > begun else error}. {QUOTES}") from error
        yield begun, row


def _names(header: Sequence[str], wanted: Sequence[str]) -> list[str]:
    given = [name.strip("\ufeff \t\r\n") for name in header]
    meant = {name.casefold(): name for name in wanted if name not in given}
    return [meant.get(name.casefold(), name) for name in given]


def unreadable(named: str, error: Exception, expected: str) -> UserError:
    """`named`: the file; `expected`: what its lines should hold."""
    way_out = f" {CONVERT}" if isinstance(error, UnicodeDecodeError) else ""
    return UserError(f"{named} is not CSV in UTF-8 or UTF-16: {error}. Expected: {expected}.{way_out}")
