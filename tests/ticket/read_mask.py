"""Read a layer's mask and codes from a ticket without popup, as popup/ticket/file.py and sealed.py describe the format.

    python tests/ticket/read_mask.py TICKET LAYER
"""

import hashlib
import json
import sys
import zlib
from fractions import Fraction

import numpy as np


def read(path):
    """Metadata, and the bytes of each tensor by name."""
    with open(path, "rb") as file:
        content = file.read()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    metadata = json.loads(header.pop("__metadata__")["popup"])
    tensors = {name: content[start + entry["data_offsets"][0]:start + entry["data_offsets"][1]] for name, entry in header.items()}
    lines = [f"{name} torch.{ {'U8': 'uint8', 'F32': 'float32', 'I64': 'int64'}[header[name]['dtype']]} {header[name]['shape']} "
             f"{hashlib.sha256(tensors[name]).hexdigest()}" for name in sorted(tensors)]
    digest = metadata.pop("digest")
    assert metadata["kind"] == "ticket" and metadata["format"] in (1, 2)
    assert digest == hashlib.sha256((json.dumps(metadata, sort_keys=True) + "".join(lines)).encode()).hexdigest()
    return metadata, tensors


def whole(metadata, layer, tensors):
    """The code of each edge, where the file holds them as one array; else None."""
    base = 2 if metadata["format"] == 1 else metadata["book"]["codes"]
    if (coded := tensors.get("whole/" + layer["name"])) is not None:
        numbers, most, digits = zlib.decompress(coded), 256, 8
    elif (packed := tensors.get("words/" + layer["name"])) is not None:
        numbers, most, digits = np.frombuffer(packed, "<u8").tolist(), 2**64, 64
    else:
        return None
    digits = max(count for count in range(1, digits + 1) if base**count <= most)
    return np.array([number // base**place % base for number in numbers for place in range(digits)][:layer["edges"]], int)


def selected(metadata, layer, tensors):
    """Which edges are kept: bool [edges]."""
    if (found := whole(metadata, layer, tensors)) is not None:
        return found > 0
    if not layer["coded"]:
        packed = np.frombuffer(tensors["mask/" + layer["name"]], np.uint8)
        return np.unpackbits(packed, count=layer["edges"], bitorder="little").astype(bool)
    found, place = np.zeros(layer["edges"], bool), 0
    for byte in zlib.decompress(tensors["gaps/" + layer["name"]]):
        place += byte
        if byte < 255:
            found[place] = True
            place += 1
    return found


def codes(metadata, layer, tensors):
    """The code of each kept edge: 1 where the format's mask says it all, else in as few bits as tell the book's codes apart."""
    if (found := whole(metadata, layer, tensors)) is not None:
        return found[found > 0]
    if metadata["format"] == 1:
        return np.ones(layer["kept"], int)
    base = metadata["book"]["codes"] - 1
    if (coded := tensors.get("digits/" + layer["name"])) is not None:
        digits = max(digits for digits in range(1, 9) if base**digits <= 256)
        found = [byte // base**place % base + 1 for byte in zlib.decompress(coded) for place in range(digits)]
        return np.array(found[:layer["kept"]], int)
    width = (base - 1).bit_length()
    packed = np.frombuffer(tensors["codes/" + layer["name"]], np.uint8)
    return np.unpackbits(packed, count=layer["kept"] * width, bitorder="little").reshape(-1, width) @ (1 << np.arange(width)) + 1


def edges(recipe, layer):
    """The flat indices of the edges: entries whose 32-bit word of the layer's Philox stream is below p_l 2**32."""
    assert recipe["mask"] == "bernoulli"
    key = hashlib.sha256(f"popup/{recipe['seed']}/edges/{layer['name']}".encode()).digest()[:16]
    entries = int(np.prod(layer["shape"]))
    words = np.random.Philox(key=int.from_bytes(key, "little")).random_raw((entries + 1) // 2).astype("<u8").view("<u4")[:entries]
    found = np.flatnonzero(words < int(Fraction(repr(layer["p_l"])) * 2**32 + Fraction(1, 2)))
    assert hashlib.sha256(found.astype("<i8").tobytes()).hexdigest() == layer["edges_hash"]
    return found


if __name__ == "__main__":
    metadata, tensors = read(sys.argv[1])
    layer = next(layer for layer in metadata["layers"] if layer["name"] == sys.argv[2])
    kept = edges(metadata["recipe"], layer)[selected(metadata, layer, tensors)]
    print(json.dumps({"shape": layer["shape"], "edges": layer["edges"], "kept": len(kept), "first": kept[:20].tolist(),
                      "codes": codes(metadata, layer, tensors)[:20].tolist()}))
