#!/usr/bin/env python3
"""Our S2 against the library nats-server uses, both ways.

    run.py [--pipe BIN] [--cache DIR]

Needs a Go toolchain of go.mod's version or newer. Ends with one line "N passed, N failed".
"""

import argparse
import os
import pathlib
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent.parent.parent
LEVELS = ["uncompressed", "fast", "better", "best"]


def run(*command, data):
    done = subprocess.run(command, input=data, capture_output=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr.decode().strip()


def samples():
    chance = random.Random(4)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(900)]
    wire = b"".join(b"RMSG $G orders.eu.%d.created %d\r\n%s\r\n" % (n % 97, len(body), body) for n in range(6000)
                    for body in [b'{"id":%d,"total":%d.50,"items":["a","b"]}' % (n, n * 7 % 900)])
    return {
        "tiny": b"PING\r\n",
        "line": b'RS+ $G orders.*.created workers 3\r\n' * 3,
        "text": b" ".join(chance.choices(words, k=250_000)),
        "wire": wire,
        "random": chance.randbytes(700_000),
        "zeros": bytes(3_000_000),
        "period": b"abc" * 400_000,
        "period17": chance.randbytes(17) * 60_000,
        "mixed": wire[:50_000] + chance.randbytes(70_000) + bytes(66_000) + wire[:90_000] + chance.randbytes(100),
        "far": (lambda block: block * 12)(chance.randbytes(300_000)),  # offsets beyond 16 bits, in large blocks
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipe", default=REPO / "build/tests/net/s2/s2_pipe", type=pathlib.Path)
    parser.add_argument("--cache", default=REPO / "build/s2-reference", type=pathlib.Path)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    reference = str(args.cache.resolve() / "s2-reference")
    subprocess.run(["go", "build", "-o", reference, "."], cwd=HERE / "reference", check=True, env={**os.environ, "GOFLAGS": "-modcacherw"})
    pipe = str(args.pipe.resolve())
    passed = failed = 0

    def tell(name, good, why=""):
        nonlocal passed, failed
        passed, failed = passed + bool(good), failed + (not good)
        print(f"ok {name}" if good else f"FAIL {name}: {why}", flush=True)

    data = samples()
    for name, plain in data.items():
        for level in [*LEVELS, "mixed"]:
            for flush in (len(plain), 1000 if len(plain) < 1_200_000 else 70_000):
                _, packed, _ = run(pipe, "encode", level, str(flush), data=plain)
                code, back, said = run(reference, "decode", data=packed)
                tell(f"ours_to_reference/{name}/{level}/{flush}", code == 0 and back == plain, said or "other bytes came back")
                code, back, said = run(pipe, "decode", "1460", data=packed)
                tell(f"ours_to_ours/{name}/{level}/{flush}", code == 0 and back == plain, said or "other bytes came back")
        for level in [*LEVELS, "default", "snappy", "padded"]:
            for flush in (len(plain), 1000 if len(plain) < 1_200_000 else 70_000):
                blocks = [[], ["4096"]] if level == "snappy" else [[], ["4096"], ["4194304"]]
                for block in blocks:
                    _, packed, _ = run(reference, "encode", level, str(flush), *block, data=plain)
                    for piece in ("0", "1", "65536"):
                        if piece == "1" and len(packed) > 300_000:
                            continue
                        code, back, said = run(pipe, "decode", piece, data=packed)
                        tell(f"reference_to_ours/{name}/{level}/{flush}/{''.join(block) or 'default'}/{piece}",
                             code == 0 and back == plain, said or "other bytes came back")

    # Every single damaged byte: both must say the same, or at least both refuse. A flipped bit in padding harms neither.
    chance = random.Random(5)
    for level in LEVELS:
        _, packed, _ = run(reference, "encode", level, "20000", data=data["wire"][:30_000])
        for case in range(12):
            broken = bytearray(packed)
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
            cut = bytes(broken[:chance.randrange(len(broken))]) if case % 4 == 3 else bytes(broken)
            theirs = run(reference, "decode", data=cut)
            ours = run(pipe, "decode", "777", data=cut)
            tell(f"damaged/{level}/{case}", ours[0] == theirs[0] and theirs[1].startswith(ours[1]),
                 f"ours {ours[0]} {ours[2]}, theirs {theirs[0]} {theirs[2]}")

    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
