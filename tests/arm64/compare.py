"""Vectors of two machines beside each other: compare.py NAME DTYPE A.npy B.npy"""

import array, ast, math, sys

# The least cosine: of the same arithmetic in another order; of values rounded to 8 bits; of bytes with other steps.
BOUNDS = {"f32": 1 - 1e-6, "bf16": 0.999, "int8": 0.997}


def rows(path):
    with open(path, "rb") as file:
        assert file.read(8) == b"\x93NUMPY\x01\x00", path
        header = ast.literal_eval(file.read(int.from_bytes(file.read(2), "little")).decode())
        assert header["descr"] == "<f4" and not header["fortran_order"], header
        values = array.array("f", file.read())
    count, width = header["shape"]
    assert len(values) == count * width and count > 0
    return [values[i * width : (i + 1) * width] for i in range(count)]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


name, dtype, here, there = sys.argv[1:]
here, there = rows(here), rows(there)
assert len(here) == len(there) and len(here[0]) == len(there[0])
cosines = [cosine(a, b) for a, b in zip(here, there)]
largest = max(abs(x - y) for a, b in zip(here, there) for x, y in zip(a, b))
print(f"{name}: {len(here)} vectors, least cosine {min(cosines):.7f}, largest difference {largest:.1e}")
# What is not a number is below any bound.
if not all(cosine >= BOUNDS[dtype] for cosine in cosines):
    sys.exit(f"{name}: below {BOUNDS[dtype]}")
