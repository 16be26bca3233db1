"""A child process whose BMP decoder really hangs, aborts or eats memory; the blue of the first pixel says which.

Run in place of ``python -m maskdet.children``.
"""

import os
import threading
import time

import numpy as np
from PIL import BmpImagePlugin, Image

from maskdet import children

SOUND, SPINS, SLEEPS, ABORTS, EATS, RAISES, PRINTS, LEAVES = range(10, 18)


class Faulty(BmpImagePlugin.BmpImageFile):
    """Pillow's decoder, which afterwards does what a broken one might."""

    def load(self):
        loaded = super().load()
        fault = self.im.getpixel((0, 0))[2]
        if fault == SPINS:
            while True:
                pass
        elif fault == SLEEPS:
            threading.Event().wait()
        elif fault == ABORTS:
            os.abort()
        elif fault == EATS:
            eaten = []
            while True:
                eaten.append(np.ones(1 << 25))
        elif fault == RAISES:
            raise KeyError("a decoder's own")
        elif fault == PRINTS:
            print("noise " * 1000, flush=True)
            os.write(2, b"noise")
        elif fault == LEAVES:
            time.sleep(0.1)
            os._exit(3)
        return loaded


if __name__ == "__main__":
    Image.register_open("BMP", Faulty, BmpImagePlugin._accept)
    children.main()
