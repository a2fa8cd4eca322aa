"""How many connections this process may have, each of which is an open file to the system."""

from __future__ import annotations

from contextlib import suppress

OTHERS = 100  # files that a run has open besides: media, outputs, libraries that are loaded late


def most_connections(wanted: int) -> int:
    """`wanted`, or as many as the limit of open files leaves, at least one; it is raised first as far as it may be."""
    try:
        import resource
    except ImportError:  # Windows, where connections are no files
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHERS
    if soft != resource.RLIM_INFINITY and soft < needed:
        higher = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(ValueError, OSError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (higher, hard))
            soft = higher
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - OTHERS))
