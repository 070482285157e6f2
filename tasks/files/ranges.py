"""An object in a bucket as a file that can be read from any offset, by requesting ranges of its bytes.

Knows bytes and offsets; knows nothing about places or what is in the file.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3 import S3Client

_REQUEST_BYTES = 1 << 20
"""Bytes of one request: enough for a header or the end of a file."""


def opened(client: S3Client, bucket: str, key: str) -> io.BufferedReader:
    """Return the object as a file. Opening and reading it raise the client's errors."""
    return io.BufferedReader(_Ranges(client, bucket, key), _REQUEST_BYTES)


class _Ranges(io.RawIOBase):
    def __init__(self, client: S3Client, bucket: str, key: str) -> None:
        self._client, self._bucket, self._key = client, bucket, key
        self._size = client.head_object(Bucket=bucket, Key=key)["ContentLength"]
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        received = self._next(len(view))
        view[: len(received)] = received
        return len(received)

    def readall(self) -> bytes:
        return self._next(self._size)

    def _next(self, count: int) -> bytes:
        end = min(self._place + count, self._size)
        if self._place >= end:
            return b""
        asked = f"bytes={self._place}-{end - 1}"
        received = self._client.get_object(Bucket=self._bucket, Key=self._key, Range=asked)["Body"].read()
        self._place = end
        return received
