"""A child process whose video decoder really aborts or hangs, as its argument says, from the third second on.

Run in place of ``python -m maskdet.children``.
"""

import os
import sys
import threading

from maskdet import children
from maskdet.video import frames

LATE_S = 3.0


def feed(decoder, packet, fault=sys.argv[-1], sound=frames._Decoder.feed):
    if packet.pts is not None and float(packet.pts * packet.time_base) >= LATE_S:
        if fault == "abort":
            os.abort()
        elif fault == "sleep":
            threading.Event().wait()
        while True:
            pass
    return sound(decoder, packet)


if __name__ == "__main__":
    frames._Decoder.feed = feed
    children.main()
