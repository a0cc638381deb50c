"""train-merge's random draws by place (src/methods/random.ts), made here again."""
import torch

M = 0xFFFFFFFF


def mix(x):
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & M
    x = ((x ^ (x >> 15)) * 0x735A2D97) & M
    return x ^ (x >> 15)


def key(text):
    h = 0x811C9DC5
    for c in text:
        h = ((h ^ ord(c)) * 0x01000193) & M
    return mix(h)


def draws(count, *parts):
    text = "\0".join(str(p) for p in parts)
    a, b = key(text), key(text + "\x01")
    return torch.tensor([mix(mix((i + a) & M) ^ b) for i in range(count)], dtype=torch.float64)
