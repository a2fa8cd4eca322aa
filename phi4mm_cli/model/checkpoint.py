"""Finds a model's files: the demo inside the package, a folder, or the Hub through its cache; checks them unread.

Only data is ever fetched or loaded: safetensors, JSON, tokenizer and template files; no pickles and no remote code.
"""

from __future__ import annotations

import errno
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.folder import Layout, in_a_line, in_gb, layout_of, read_json, require_shards, shards_of
from phi4mm_cli.model.layout import ADAPTERS
from phi4mm_cli.paths import from_home, is_folder, is_there
from phi4mm_cli.schema import Profile

DEFAULT_MODEL = "microsoft/Phi-4-multimodal-instruct"

# Of that repository the default is `main`, in the original layout: it is what its authors maintain and what most caches
# hold. The same weights in transformers' own layout are in a pull request that was never merged and may go away; a copy
# of it in the cache is used where there is none of `main`.
CONVERTED_REVISION = "refs/pr/70"

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent.parent / "demo" / "checkpoint"

ALLOWED_FILES = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "LICENSE*"]
# In the original layout these folders repeat what the shards hold: 1.7 GB of the released model.
DUPLICATES = ["speech-lora/*", "vision-lora/*"]

HUB_TIMEOUT = 5.0  # seconds for the Hub's first answer; a network that drops packets would hang for minutes otherwise
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Adapters = tuple[tuple[str, Path], ...]  # name, and the folder that it is in


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on this machine. `dtype` and `profile` come from an optional `phi4mm.json` beside the weights."""

    path: Path
    name: str
    revision: str | None  # the commit, of a model from the Hub
    dtype: str | None  # the arithmetic it has to run in; None: any
    profile: Profile
    layout: Layout = "native"
    adapters: Adapters = ()  # in place of the checkpoint's own, or added to them


def resolve(model: str, revision: str | None = None, adapters: Adapters = ()) -> Checkpoint:
    """The checkpoint that `model` names: `demo`, a folder, or a Hub id, downloaded where it is not in the cache.

    A complete copy in the cache is used without asking the Hub. `revision` is a branch, tag or commit of a Hub id.
    Raises MissingError where there is no usable model, UsageError for a revision of something not on the Hub.
    """
    folder = local_folder(model, revision)
    if folder is not None:
        return _checkpoint(folder, folder.resolve().name, None, adapters)
    folder = cached(model, revision) or download(model, revision)
    return _checkpoint(folder, model, folder.name, adapters)  # the cache names a snapshot's folder after its commit


def local_folder(model: str, revision: str | None) -> Path | None:
    """The folder that `model` names, None where it is a Hub id. Raises as `resolve` does."""
    if model != DEMO and not _is_path(model):
        return None
    if revision is not None:
        raise UsageError(f"--revision {revision} is for models on the Hub, and {model} is not", "Leave it out")
    folder = DEMO_FOLDER if model == DEMO else from_home(model)
    if not is_folder(folder):
        raise MissingError(f"there is no model folder at {model}", ways_on(DEFAULT_MODEL))
    return folder


def _is_path(model: str) -> bool:
    return model.startswith(("/", "~", "./", "../")) or model in (".", "..") or is_there(model)


def ways_on(model: str, revision: str | None = None) -> str:
    """What to do where a model cannot be had."""
    command = f"phi4mm models download {model}" + (f" --revision {revision}" if revision else "")
    return f"Download it where there is a network (`{command}`), give a folder (--model PATH), or use --model {DEMO}"


# ------------------------------------------------------------------------------------------------------ a folder


def _checkpoint(folder: Path, name: str, revision: str | None, adapters: Adapters) -> Checkpoint:
    config = read_json(folder / "config.json")
    layout = layout_of(config, name)
    require_shards(folder, name)
    if not (folder / "tokenizer.json").is_file():
        raise MissingError(f"the model {name} has no tokenizer.json", ways_on(DEFAULT_MODEL))
    for adapter, place in adapters:
        if not is_folder(place):
            raise MissingError(f"there is no adapter folder at {place}", f"Check --adapter {adapter}=PATH")
    own = read_json(folder / "phi4mm.json") if (folder / "phi4mm.json").exists() else {}
    languages = own.get("languages")
    profile = Profile(
        max_chunk_seconds=float(own.get("max_chunk_seconds", Profile().max_chunk_seconds)),
        languages=None if languages is None else tuple(languages),
        notice=own.get("notice"),
        context=int(config.get("max_position_embeddings", Profile().context)),
        adapters=tuple(name for name in ADAPTERS if name in dict(adapters) or _has_adapter(folder, config, name)),
    )
    return Checkpoint(folder, own.get("name", name), revision, own.get("dtype"), profile, layout, adapters)


def _has_adapter(folder: Path, config: dict[str, Any], name: str) -> bool:
    """Whether the model comes with it: in its shards, as an original config.json says, or in a folder beside them."""
    return bool(config.get(f"{name}_lora")) or (folder / f"{name}-lora").is_dir()


# ------------------------------------------------------------------------------------------------------- the Hub


def cached(model: str, revision: str | None) -> Path | None:
    """The folder of a complete copy in the Hub's cache; without a `revision`, of any branch that would do."""
    wanted = [None, CONVERTED_REVISION] if revision is None and model == DEFAULT_MODEL else [revision]
    return next((folder for branch in wanted if (folder := _cached(model, branch)) is not None), None)


def _cached(model: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        with _hub_errors(model, revision):
            # Newer versions of it raise where a file of the patterns is missing; what is needed is judged here.
            path = snapshot_download(model, revision=revision, allow_patterns=["config.json"], local_files_only=True)
    except _NotCachedError:
        return None
    return Path(path) if is_complete(Path(path), model) else None


def is_complete(folder: Path, model: str) -> bool:
    """Whether all that is needed of a Hub model is in `folder`. Raises MissingError where it is damaged.

    Other programs leave partial copies, such as a lone config.json; those are completed by a download.
    """
    if not all((folder / name).is_file() for name in ("config.json", "tokenizer.json")):
        return False
    shards = shards_of(folder)
    if model == DEFAULT_MODEL and layout_of(read_json(folder / "config.json"), model) == "native":
        shards += [f"{name}-lora/adapter_model.safetensors" for name in ("speech", "vision")]
    return bool(shards) and all((folder / name).is_file() for name in shards)


def download(model: str, revision: str | None) -> Path:
    """Fetch the model's files into the Hub's cache; its kind is looked at before gigabytes of weights are."""
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download

    with _hub_errors(model, revision):
        HfApi().model_info(model, revision=revision, timeout=HUB_TIMEOUT)
        config = hf_hub_download(model, "config.json", revision=revision, etag_timeout=HUB_TIMEOUT)
    layout = layout_of(read_json(Path(config)), model)
    skipped = DUPLICATES if layout == "original" else None
    fetch: Callable[..., Any] = partial(
        snapshot_download, model, revision=revision, allow_patterns=ALLOWED_FILES, ignore_patterns=skipped
    )
    with _hub_errors(model, revision, bars=False):
        size = sum(file.file_size or 0 for file in fetch(dry_run=True) if file.will_download)
    free = shutil.disk_usage(constants.HF_HUB_CACHE).free
    if size > free:
        message = f"{model} needs {in_gb(size)} in the cache, and {constants.HF_HUB_CACHE} has {in_gb(free)} free"
        raise MissingError(message, "Make room there, or name a folder on another disk with HF_HOME")
    with _hub_errors(model, revision):
        return Path(fetch())


class _NotCachedError(MissingError):
    """The Hub was not asked, or did not answer, and its cache has no such model."""


@contextmanager
def _hub_errors(model: str, revision: str | None, bars: bool = True) -> Iterator[None]:
    """Raise what huggingface_hub reports as MissingError, in one line; let it show its `bars` to terminals only."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    (enable_progress_bars if bars and sys.stderr.isatty() else disable_progress_bars)()
    ways = ways_on(model, revision)
    where = model if revision is None else f"{model} at revision {revision}"
    # The base class of the HTTP library that this version of huggingface_hub speaks through (httpx, httpx2).
    http_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.HFValidationError as error:
        message = f"{model} is neither a folder nor the id of a model on the Hub"
        raise MissingError(message, ways_on(DEFAULT_MODEL)) from error
    except errors.GatedRepoError as error:
        advice = "Ask for access on its page and log in with `hf auth login`, or use --model PATH or --model demo"
        raise MissingError(f"the Hub lets only approved users download {model}", advice) from error
    except errors.RepositoryNotFoundError as error:
        advice = f"Check the id, log in with `hf auth login` if it is private, or use --model PATH or --model {DEMO}"
        raise MissingError(f"the Hub has no public model {model}", advice) from error
    except errors.RevisionNotFoundError as error:
        raise MissingError(f"the Hub's {model} has no revision {revision}", "Check --revision") from error
    except errors.RemoteEntryNotFoundError as error:
        raise MissingError(f"the Hub's {where} has no config.json: it is not a model", ways) from error
    except errors.LocalEntryNotFoundError as error:
        message = f"{where} is not in the cache, and the Hub did not answer"
        raise _NotCachedError(message, ways) from error
    except (http_error, OSError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            message = f"there is no room for {where} in the cache, {constants.HF_HUB_CACHE}: {error.strerror}"
            raise MissingError(message, "Make room there, or name a folder on another disk with HF_HOME") from error
        state = "the Hub is switched off (HF_HUB_OFFLINE)" if constants.is_offline_mode() else in_a_line(error)
        raise MissingError(f"{where} is not in the cache and cannot be downloaded: {state}", ways) from error
