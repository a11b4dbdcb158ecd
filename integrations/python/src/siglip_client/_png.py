"""Decoded pixels as a PNG, without loss and without a library: engines that decode pictures themselves give arrays."""

from __future__ import annotations

import struct
import zlib
from typing import Any

#: PNG's colour types by the number of channels.
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}


def png(pixels: Any) -> bytes:
    """A NumPy array of shape [height, width] or [height, width, channels], of bytes, or a Pillow picture.

    Raises TypeError for another type of number, ValueError for another shape.
    """
    import numpy

    array = numpy.asarray(pixels)
    if array.dtype != numpy.uint8:
        raise TypeError(f"pixels of the type {array.dtype}: bytes are wanted; convert_image('RGB') makes them")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in _COLOURS or not array.size:
        raise ValueError(f"an array of the shape {list(array.shape)} is no picture: [height, width, 1 to 4 channels]")
    height, width, channels = array.shape
    # A 0 before each row: no filter. They go to a process beside this one, so that they are not worth compressing.
    rows = numpy.zeros((height, 1 + width * channels), numpy.uint8)
    rows[:, 1:] = array.reshape(height, width * channels)
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
