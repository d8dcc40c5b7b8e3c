"""Small colour profiles, built by the ICC specification (ICC.1:2022)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

#: Display P3's primaries and white, adapted to D50.
P3_COLUMNS = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}
D50 = (0.9642, 1.0, 0.8249)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def display_p3() -> bytes:
    """RGB with the primaries of Display P3 and the curve of sRGB."""
    curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + b"".join(map(_fixed, SRGB_CURVE))
    columns = {name: b"XYZ " + bytes(4) + b"".join(map(_fixed, column)) for name, column in P3_COLUMNS.items()}
    return _profile(b"RGB ", b"XYZ ", columns | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def cmyk_with_green_cyan() -> bytes:
    """CMYK by a table of two points a channel, in which cyan ink is green and every other ink black."""
    ramp = bytes(range(256))
    table = b""
    for corner in range(16):
        cyan, others = corner >> 3, corner & 7
        lab = (0, 128, 128) if others else (180, 40, 200) if cyan else (255, 128, 128)
        table += bytes(lab)
    identity = b"".join(map(_fixed, (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + ramp * 4 + table + ramp * 3
    return _profile(b"CMYK", b"Lab ", {b"A2B0": lut}, kind=b"prtr")


def _profile(space: bytes, connection: bytes, tags: Mapping[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78), b"wtpt": _white(), **tags}
    start = 128 + 4 + 12 * len(tags)
    index, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        index += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sI4s4s8sI12s48x",
        start + len(body), b"lcms", 0x02400000, kind, space, connection, bytes(12), b"acsp", bytes(4), 0, bytes(4),
        bytes(4), bytes(8), 0, b"".join(map(_fixed, D50)),
    )  # fmt: skip
    return header + index + body


def _white() -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, D50))


def _fixed(value: float) -> bytes:
    """s15Fixed16Number."""
    return struct.pack(">i", round(value * 65536))
