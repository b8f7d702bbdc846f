"""What torch.randn draws on a CUDA device, in numpy: Philox4x32-10 and Box-Muller as in curand_normal4."""
import numpy as np

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
INCREMENTS = (0x9E3779B9, 0xBB67AE85)
MASK = np.uint64(0xFFFFFFFF)
INVERSE = np.float32(2.3283064e-10)


class TorchCudaRng:
    def __init__(self, seed):
        self.seed, self.offset = seed, 0

    def normal(self, shape):
        count = int(np.prod(shape))
        thread = np.arange(count, dtype=np.uint64)
        zero = np.zeros(count, dtype=np.uint64)
        counter = [zero + np.uint64(self.offset), zero, thread & MASK, thread >> np.uint64(32)]
        key = [self.seed & 0xFFFFFFFF, self.seed >> 32]
        for round in range(10):
            if round:
                key = [(key[i] + INCREMENTS[i]) & 0xFFFFFFFF for i in (0, 1)]
            first, second = counter[0] * np.uint64(MULTIPLIERS[0]), counter[2] * np.uint64(MULTIPLIERS[1])
            counter = [
                (second >> np.uint64(32)) ^ counter[1] ^ np.uint64(key[0]),
                second & MASK,
                (first >> np.uint64(32)) ^ counter[3] ^ np.uint64(key[1]),
                first & MASK,
            ]
        self.offset += 1
        u = counter[0].astype(np.float32) * INVERSE + INVERSE / np.float32(2)
        v = counter[1].astype(np.float32) * (INVERSE * np.float32(2 * np.pi)) + INVERSE * np.float32(np.pi)
        values = np.sqrt(-2 * np.log(u.astype(np.float64))) * np.sin(v.astype(np.float64))
        return values.astype(np.float32).reshape(shape)
