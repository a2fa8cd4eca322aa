"""The models on this machine: the demo, and those of this kind in the Hub's cache, whichever program put them there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.checkpoint import DEMO, DEMO_FOLDER, is_complete
from phi4mm_cli.model.folder import Layout, layout_of, read_json


@dataclass(frozen=True, slots=True)
class Held:
    """A model that is here, or a part of one."""

    model: str
    layout: Layout
    size: int  # bytes
    complete: bool
    path: str
    revision: str | None = None  # the commit
    branches: tuple[str, ...] = ()


def held() -> Iterator[Held]:
    """The demo, then the cache's models in the order of their names. Raises MissingError for a damaged index."""
    size = sum(path.stat().st_size for path in DEMO_FOLDER.rglob("*") if path.is_file())
    yield Held(DEMO, "native", size, True, str(DEMO_FOLDER))
    yield from sorted(_cached(), key=lambda model: (model.model, model.path))


def _cached() -> Iterator[Held]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repository in repositories:
        for snapshot in repository.revisions if repository.repo_type == "model" else ():
            layout = _layout(snapshot.snapshot_path, repository.repo_id)
            if layout is not None:
                yield Held(
                    repository.repo_id,
                    layout,
                    snapshot.size_on_disk,
                    is_complete(snapshot.snapshot_path, repository.repo_id),
                    str(snapshot.snapshot_path),
                    snapshot.commit_hash,
                    tuple(sorted(snapshot.refs)),
                )


def _layout(folder: Path, name: str) -> Layout | None:
    """None for another kind of model, or where nobody can tell."""
    try:
        return layout_of(read_json(folder / "config.json"), name)
    except MissingError:
        return None
