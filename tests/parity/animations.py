"""Frames of animations against Pillow: GIF, WebP and APNG, made here, the same on every run.

    cargo build --release --example preprocess
    pip install pillow numpy
    python tests/parity/animations.py [--helper target/release/examples/preprocess] [--keep DIR]

Each frame is what Pillow shows after `seek` on a file that was just opened, byte for byte. Where Pillow cannot show a frame, we may.
The frames that `count` chooses, and their times, are compared with the durations that Pillow reads. Exits with 1 and names the files
that differ.
"""

import argparse
import io
import json
import random
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent))
from images import Helper  # noqa: E402


def drawing(chance, size, mode="RGBA", alpha=True):
    """A few shapes, some of them half transparent."""
    picture = Image.new("RGBA", size, (0, 0, 0, 0) if alpha else tuple(chance.randrange(256) for _ in range(3)) + (255,))
    draw = ImageDraw.Draw(picture)
    for _ in range(4):
        box = sorted(chance.randrange(-5, size[0] + 5) for _ in range(2)), sorted(chance.randrange(-5, size[1] + 5) for _ in range(2))
        colour = tuple(chance.randrange(256) for _ in range(3))
        opacity = chance.choice([255, 255, 128, 3, 77, 0]) if alpha else 255
        shape = chance.choice([draw.rectangle, draw.ellipse])
        shape((box[0][0], box[1][0], box[0][1] + 1, box[1][1] + 1), fill=(*colour, opacity))
    return picture.convert(mode)


# GIF, byte by byte: Pillow's own encoder makes too few kinds.

def lzw(indices, bits):
    """Codes of one width, with a clear code before the table would grow."""
    clear, end, width = 1 << bits, (1 << bits) + 1, bits + 1
    out, have, count = bytearray(), 0, 0

    def put(code):
        nonlocal have, count
        have |= code << count
        count += width
        while count >= 8:
            out.append(have & 255)
            have >>= 8
            count -= 8

    most = (1 << width) - (1 << bits) - 3
    for at in range(0, len(indices), max(most, 1)):
        put(clear)
        for index in indices[at:at + max(most, 1)]:
            put(index)
    put(end)
    if count:
        out.append(have & 255)
    blocks = b"".join(bytes([len(out[i:i + 255])]) + bytes(out[i:i + 255]) for i in range(0, len(out), 255))
    return bytes([bits]) + blocks + b"\0"


def palette(chance, bits, grey=False):
    if grey:
        return bytes(value for i in range(1 << bits) for value in (i, i, i))
    return bytes(chance.randrange(256) for _ in range(3 << bits))


def gif(chance):
    width, height = chance.randrange(4, 40), chance.randrange(4, 40)
    bits = chance.randrange(2, 9)
    glob = chance.random() < 0.8
    out = bytearray(b"GIF89a" + struct.pack("<HHBBB", width, height, (0x80 | bits - 1) if glob else 0, chance.randrange(1 << bits), 0))
    if glob:
        out += palette(chance, bits, chance.random() < 0.1)
    grows = chance.random() < 0.15
    for number in range(chance.randrange(2, 7)):
        if chance.random() < 0.9:
            transparent = chance.random() < 0.6
            dispose = chance.choice([0, 1, 2, 2, 3, 3])
            out += b"!\xf9\x04" + struct.pack("<BHBB", dispose << 2 | transparent, chance.choice([0, 3, 10, 50]), chance.randrange(1 << bits), 0)
        if number and chance.random() < 0.7:
            w, h = chance.randrange(1, width + 1), chance.randrange(1, height + 1)
            x, y = chance.randrange(width - w + 1), chance.randrange(height - h + 1)
            if grows and chance.random() < 0.4:
                x, y = x + chance.randrange(6), y + chance.randrange(6)
        else:
            x, y, w, h = 0, 0, width, height
        local = not glob or chance.random() < 0.4
        own = chance.randrange(2, 9) if local else bits
        interlaced = chance.random() < 0.2
        out += b"," + struct.pack("<HHHHB", x, y, w, h, (0x80 | own - 1 if local else 0) | interlaced << 6)
        if local:
            # Of a first frame whose palette is grey Pillow shows the colours of the palette for all frames, which it does not have.
            out += palette(chance, own, chance.random() < 0.15 and (number > 0 or not glob))
        values = [chance.randrange(1 << own) for _ in range(7)]
        out += lzw([chance.choice(values) for _ in range(w * h)], own)
    return bytes(out + b";")


def webp(chance):
    size = chance.randrange(8, 60), chance.randrange(8, 60)
    frames = [drawing(chance, size) for _ in range(chance.randrange(2, 7))]
    if chance.random() < 0.4:
        # Parts that stay, so that the encoder makes small frames that are laid over.
        for i in range(1, len(frames)):
            below = frames[i - 1].copy()
            below.alpha_composite(frames[i].crop((0, 0, size[0] // 2, size[1] // 2)), (chance.randrange(size[0] // 2), 0))
            frames[i] = below
    data = io.BytesIO()
    frames[0].save(data, "WEBP", save_all=True, append_images=frames[1:], duration=[chance.choice([10, 40, 333]) for _ in frames],
                   lossless=chance.random() < 0.5, allow_mixed=chance.random() < 0.3, minimize_size=chance.random() < 0.5,
                   kmin=chance.choice([0, 3, 9]), kmax=chance.choice([1, 5, 20]))
    return data.getvalue()


def remuxed_webp(chance):
    """Frames of any place, any rule: what Pillow's encoder never chooses."""
    width, height = chance.randrange(8, 50), chance.randrange(8, 50)
    body = b"VP8X" + struct.pack("<I", 10) + bytes([0x12 if chance.random() < 0.8 else 0x02, 0, 0, 0])
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body += b"ANIM" + struct.pack("<IIH", 6, chance.randrange(1 << 32), 0)
    for _ in range(chance.randrange(2, 8)):
        whole = chance.random() < 0.4
        w, h = (width, height) if whole else (chance.randrange(1, width + 1), chance.randrange(1, height + 1))
        x, y = chance.randrange(width - w + 1) // 2 * 2, chance.randrange(height - h + 1) // 2 * 2
        alpha = chance.random() < 0.7
        data = io.BytesIO()
        drawing(chance, (w, h), "RGBA" if alpha else "RGB", alpha).save(data, "WEBP", lossless=chance.random() < 0.5, exact=True)
        parts, at = b"", 12
        while at < len(data.getvalue()):
            name, length = data.getvalue()[at:at + 4], struct.unpack("<I", data.getvalue()[at + 4:at + 8])[0]
            if name in (b"VP8 ", b"VP8L", b"ALPH"):
                parts += data.getvalue()[at:at + 8 + length + length % 2]
            at += 8 + length + length % 2
        head = b"".join(number.to_bytes(3, "little") for number in (x // 2, y // 2, w - 1, h - 1, chance.choice([0, 20, 100])))
        frame = head + bytes([chance.randrange(4)]) + parts
        body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def png(chance):
    """Of any colour type, with every rule, with and without a picture that is no frame."""
    kind, depth = chance.choice([(0, 8), (0, 2), (0, 1), (2, 8), (2, 16), (3, 8), (3, 4), (3, 1), (4, 8), (4, 16), (6, 8), (6, 8), (6, 16)])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    width, height = chance.randrange(3, 40), chance.randrange(3, 40)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def pixels(w, h):
        lines = b""
        some = [bytes(chance.choice([chance.randrange(256), 0, 255]) for _ in range(channels * max(depth // 8, 1))) for _ in range(5)]
        for _ in range(h):
            if depth < 8:
                lines += b"\0" + bytes(chance.randrange(256) for _ in range((w * depth + 7) // 8))
            else:
                lines += b"\0" + b"".join(chance.choice(some) for _ in range(w))
        return zlib.compress(lines)

    count = chance.randrange(2, 7)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    out += chunk(b"acTL", struct.pack(">II", count, 0))
    if kind == 3:
        out += chunk(b"PLTE", bytes(chance.randrange(256) for _ in range(3 << depth)))
    if kind == 3 and chance.random() < 0.6:
        alphas = [chance.choice([255, 255, 0, 100]) for _ in range(chance.randrange(1, (1 << depth) + 1))]
        out += chunk(b"tRNS", bytes(alphas))
    elif kind == 2 and depth == 8 and chance.random() < 0.4:
        out += chunk(b"tRNS", struct.pack(">HHH", *(chance.choice([0, 255]) for _ in range(3))))
    elif kind == 0 and chance.random() < 0.3:
        out += chunk(b"tRNS", struct.pack(">H", chance.choice([0, (1 << depth) - 1])))
    number = 0
    if chance.random() < 0.3:
        out += chunk(b"IDAT", pixels(width, height))
        default = True
    else:
        default = False
    for frame in range(count):
        if frame == 0 or chance.random() < 0.3:
            x, y, w, h = 0, 0, width, height
        else:
            w, h = chance.randrange(1, width + 1), chance.randrange(1, height + 1)
            x, y = chance.randrange(width - w + 1), chance.randrange(height - h + 1)
        delay = chance.choice([(1, 10), (0, 0), (5, 0), (40, 1000), (1, 4)])
        rules = chance.randrange(3), chance.randrange(2)
        out += chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, w, h, x, y, *delay, *rules))
        number += 1
        data = pixels(w, h)
        if frame == 0 and not default:
            out += chunk(b"IDAT", data)
        else:
            half = len(data) // 2
            for part in (data[:half], data[half:]):
                out += chunk(b"fdAT", struct.pack(">I", number) + part)
                number += 1
    return out + chunk(b"IEND", b"")


def theirs(data):
    """Each frame that Pillow shows, or why not, and for how long; frames of the animation only."""
    image = Image.open(io.BytesIO(data))
    first = 1 if image.format == "PNG" and image.info.get("default_image") else 0
    shown = []
    for number in range(first, image.n_frames):
        try:
            image = Image.open(io.BytesIO(data))
            image.seek(number)
            picture = ImageOps.exif_transpose(image).convert("RGB")
            duration = image.info.get("duration", 0)
            shown.append((np.asarray(picture), duration))
        except Exception as error:  # noqa: BLE001 - Pillow raises anything on odd files
            shown.append((error, 0))
    return shown


def ours(helper, path, count):
    helper.process.stdin.write(json.dumps({"path": str(path), "step": "frames", "count": count}).encode() + b"\n")
    helper.process.stdin.flush()
    answer = json.loads(helper.process.stdout.readline())
    if "error" in answer:
        raise ValueError(answer["error"])
    data = helper.process.stdout.read(answer["shape"][0])
    found, at = [], 0
    for time, height, width in answer["frames"]:
        size = height * width * 3
        found.append((time, np.frombuffer(data[at:at + size], np.uint8).reshape(height, width, 3)))
        at += size
    return found


def chosen(durations, count):
    """Which frames are shown in the middles of `count` equal parts of the time."""
    ends = np.cumsum([duration if duration > 0 else 100 for duration in durations])
    middles = [(part + 0.5) * ends[-1] / count for part in range(count)]
    frames = [min(int(np.searchsorted(ends, middle, side="right")), len(ends) - 1) for middle in middles]
    return {frame: frames.index(frame) for frame in frames}, middles


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--helper", default=Path(__file__).resolve().parents[2] / "target/release/examples/preprocess")
    parser.add_argument("--keep", type=Path, help="a folder to leave the files in")
    parser.add_argument("--count", type=int, default=250, help="files of each kind")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    helper, failures = Helper(arguments.helper), []
    for kind, make in (("gif", gif), ("webp", webp), ("mux.webp", remuxed_webp), ("png", png)):
        chance, exact, skipped = random.Random(11), 0, 0
        for number in range(arguments.count):
            data = make(chance)
            path = folder / f"{number:04}.{kind}"
            path.write_bytes(data)
            shown = theirs(data)
            if len(shown) < 2:
                continue
            try:
                found = ours(helper, path, 100_000)
            except ValueError as error:
                if any(not isinstance(picture, Exception) for picture, _ in shown):
                    failures.append(f"{path.name}: {error}")
                continue
            if len(found) != len(shown):
                failures.append(f"{path.name}: {len(found)} frames, Pillow {len(shown)}")
                continue
            for at, ((_, ours_at), (theirs_at, _)) in enumerate(zip(found, shown)):
                if isinstance(theirs_at, Exception):
                    skipped += 1
                elif ours_at.shape != theirs_at.shape:
                    failures.append(f"{path.name}: frame {at}: shape {ours_at.shape}, Pillow {theirs_at.shape}")
                elif (ours_at != theirs_at).any():
                    difference = np.abs(ours_at.astype(int) - theirs_at.astype(int))
                    failures.append(f"{path.name}: frame {at}: differs by up to {difference.max()} in {(difference > 0).any(2).sum()} pixels")
                else:
                    exact += 1
            if any(isinstance(picture, Exception) for picture, _ in shown):
                continue
            for count in (1, 2, 3, 7):
                want, middles = chosen([duration for _, duration in shown], count)
                some = ours(helper, path, count)
                times = [int(middles[first] + 1e-9) / 1000 for first in want.values()]
                same = len(some) == len(want) and all(
                    abs(time - wanted) < 1.1e-3 and picture.shape == shown[frame][0].shape and (picture == shown[frame][0]).all()
                    for (time, picture), wanted, frame in zip(some, times, want))
                if not same:
                    failures.append(f"{path.name}: {count} frames: {[time for time, _ in some]}, not {times}")
        print(f"{kind:10} {arguments.count} files, {exact} frames exact, {skipped} that Pillow cannot show")
    print("\n".join(failures[:300]) if failures else "all as they must be")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
