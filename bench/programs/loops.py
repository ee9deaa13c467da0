# SPDX-License-Identifier: MIT
"""Objects, dictionaries, text, big and floating-point numbers: python3 loops.py TIMES"""
import hashlib
import json
import re
import sys


class Body:
    def __init__(self, x, v):
        self.x, self.v = x, v

    def step(self, dt):
        self.v -= self.x * dt
        self.x += self.v * dt


def queens(n, row=0, cols=0, left=0, right=0):
    if row == n:
        return 1
    found, free = 0, ~(cols | left | right) & ((1 << n) - 1)
    while free:
        bit = free & -free
        free ^= bit
        found += queens(n, row + 1, cols | bit, (left | bit) << 1, (right | bit) >> 1)
    return found


def words(n):
    text = " ".join("w%d" % (i * 7919 % 1013) for i in range(n))
    count = {}
    for w in re.findall(r"w(\d+)", text):
        count[w] = count.get(w, 0) + 1
    return json.dumps(sorted(count.items(), key=lambda kv: (-kv[1], kv[0]))[:50])


out = []
for i in range(int(sys.argv[1])):
    bodies = [Body(1.0 + k, 0.0) for k in range(50)]
    for _ in range(100):
        for b in bodies:
            b.step(0.01)
    out.append("%r" % sum(b.x for b in bodies))
    out.append(str(queens(7)))
    out.append(words(5000 + i))
    out.append(str(pow(3, 2000 + i) % (10 ** 40 + 7)))
print(hashlib.sha256("\n".join(out).encode()).hexdigest())
