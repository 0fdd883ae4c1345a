"""How a process that runs for weeks keeps to the memory that it needs."""

from __future__ import annotations

import ctypes
import gc

# mallopt's names for what it sets (malloc.h of the GNU library).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_ARENAS = 2
_LARGE_BYTES = 2**20


def bound_allocator() -> bool:
    """
    Let the C allocator keep few pools and give large blocks back; call it before there are threads.

    By itself it makes a pool for each thread that computes, and learns to keep blocks as large as the largest that was
    freed: each peak then stays resident. Returns whether it could be told; another C library manages by itself.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    wanted = ((_ARENA_MAX, _ARENAS), (_MMAP_THRESHOLD, _LARGE_BYTES), (_TRIM_THRESHOLD, _LARGE_BYTES))
    taken = [mallopt(name, value) for name, value in wanted]
    return all(one == 1 for one in taken)


def settle() -> None:
    """
    Put aside what the start has made and the process will keep; call it once it stands ready.

    The collector of cycles then walks through what trading makes, and nothing else: its pauses are short, and it comes
    before a quarter as many objects as the libraries have wait for it.
    """
    gc.collect()
    gc.freeze()
