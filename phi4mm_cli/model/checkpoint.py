"""Finds a model's files: the demo inside the package, a folder, or the Hub through its cache; checks them unread.

Only data is ever fetched or loaded: safetensors, JSON, tokenizer and template files; no pickles and no remote code.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.schema import Profile

DEFAULT_MODEL = "microsoft/Phi-4-multimodal-instruct"

# The branch of that repository in transformers' own layout. `main` is in the original layout, whose code has to be
# downloaded and run; the pull request that converts it was never merged.
DEFAULT_REVISION = "refs/pr/70"

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent.parent / "demo" / "checkpoint"

ALLOWED_FILES = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "LICENSE*"]  # speech-lora/ and vision-lora/ too

HUB_TIMEOUT = 5.0  # seconds for the Hub's first answer; a network that drops packets would hang for minutes otherwise


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on this machine. `dtype` and `profile` come from an optional `phi4mm.json` beside the weights."""

    path: Path
    name: str
    revision: str | None  # the commit, of a model from the Hub
    dtype: str | None  # the arithmetic it has to run in; None: any
    profile: Profile


def resolve(model: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint that `model` names: `demo`, a folder, or a Hub id, downloaded where it is not in the cache.

    A complete copy in the cache is used without asking the Hub. `revision` is a branch, tag or commit of a Hub id.
    Raises MissingError where there is no usable model, UsageError for a revision of something not on the Hub.
    """
    if model == DEMO or _is_path(model):
        if revision is not None:
            raise UsageError(f"--revision {revision} is for models on the Hub, and {model} is not", "Leave it out")
        folder = DEMO_FOLDER if model == DEMO else Path(model).expanduser()
        if not folder.is_dir():
            raise MissingError(f"there is no model folder at {model}", _ways_on(DEFAULT_MODEL, DEFAULT_REVISION))
        return _checkpoint(folder, folder.resolve().name, None)
    if revision is None and model == DEFAULT_MODEL:
        revision = DEFAULT_REVISION
    folder = _cached(model, revision) or _download(model, revision)
    return _checkpoint(folder, model, folder.name)  # the cache names a snapshot's folder after its commit


def _is_path(model: str) -> bool:
    return model.startswith(("/", "~", "./", "../")) or model in (".", "..") or Path(model).exists()


def _ways_on(model: str, revision: str | None) -> str:
    command = f"hf download {model}" + (f" --revision {revision}" if revision else "")
    return f"Download it where there is a network (`{command}`), give a folder (--model PATH), or use --model {DEMO}"


# ------------------------------------------------------------------------------------------------------ a folder


def _checkpoint(folder: Path, name: str, revision: str | None) -> Checkpoint:
    _require_layout(_json(folder / "config.json"), name)
    _require_weights(folder, name)
    if not (folder / "tokenizer.json").is_file():
        raise MissingError(f"the model {name} has no tokenizer.json", _ways_on(DEFAULT_MODEL, DEFAULT_REVISION))
    own = _json(folder / "phi4mm.json") if (folder / "phi4mm.json").exists() else {}
    languages = own.get("languages")
    profile = Profile(
        max_chunk_seconds=float(own.get("max_chunk_seconds", Profile().max_chunk_seconds)),
        languages=None if languages is None else tuple(languages),
        notice=own.get("notice"),
    )
    return Checkpoint(folder, own.get("name", name), revision, own.get("dtype"), profile)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"{path.parent} has no {path.name}: it is not a model folder"
        raise MissingError(message, _ways_on(DEFAULT_MODEL, DEFAULT_REVISION)) from error
    except (OSError, ValueError) as error:
        raise MissingError(f"{path} cannot be read as JSON: {_line(error)}", "Copy or download it again") from error
    if not isinstance(content, dict):
        raise MissingError(f"{path} holds no JSON object", "Copy or download it again")
    return content


def _require_layout(config: dict[str, Any], name: str) -> None:
    kind = config.get("model_type")
    if kind == "phi4mm":
        raise MissingError(
            f"the model {name} is in the original layout (model_type phi4mm), which is not supported yet",
            f"Use --revision {DEFAULT_REVISION} of {DEFAULT_MODEL}, or a folder converted to phi4_multimodal",
        )
    if kind != "phi4_multimodal":
        raise MissingError(
            f"the model {name} is of type {kind}, not phi4_multimodal", _ways_on(DEFAULT_MODEL, DEFAULT_REVISION)
        )


def _require_weights(folder: Path, name: str) -> None:
    shards = _shards(folder)
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        message = f"the model {name} is incomplete: {missing[0]} is missing ({len(missing)} of {len(shards)} files)"
        raise MissingError(message, "Copy or download it again")
    if not shards:
        pickles = sorted(path.name for suffix in ("bin", "pt", "pth") for path in folder.glob(f"*.{suffix}"))
        why = f"only {pickles[0]}, and a pickle can run code when it is loaded" if pickles else "model.safetensors"
        verb = "has" if pickles else "has no"
        raise MissingError(f"the model {name} {verb} {why}", _ways_on(DEFAULT_MODEL, DEFAULT_REVISION))


def _shards(folder: Path) -> list[str]:
    """The weight files that should be there; [] where no safetensors are."""
    if (folder / "model.safetensors.index.json").exists():
        return sorted(set(_json(folder / "model.safetensors.index.json").get("weight_map", {}).values()))
    return ["model.safetensors"] if (folder / "model.safetensors").exists() else []


# ------------------------------------------------------------------------------------------------------- the Hub


def _cached(model: str, revision: str | None) -> Path | None:
    """The folder of a complete copy in the Hub's cache."""
    from huggingface_hub import snapshot_download

    try:
        with _hub_errors(model, revision):
            path = snapshot_download(model, revision=revision, allow_patterns=ALLOWED_FILES, local_files_only=True)
    except _NotCachedError:
        return None
    folder = Path(path)
    shards = _shards(folder)
    # Other programs leave partial copies, such as a lone config.json; those are completed by a download.
    complete = shards and all((folder / name).is_file() for name in (*shards, "config.json", "tokenizer.json"))
    return folder if complete else None


def _download(model: str, revision: str | None) -> Path:
    """Fetch the model's files into the Hub's cache; its kind is looked at before gigabytes of weights are."""
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    with _hub_errors(model, revision):
        HfApi().model_info(model, revision=revision, timeout=HUB_TIMEOUT)
        config = hf_hub_download(model, "config.json", revision=revision, etag_timeout=HUB_TIMEOUT)
    _require_layout(_json(Path(config)), model)
    with _hub_errors(model, revision):
        return Path(snapshot_download(model, revision=revision, allow_patterns=ALLOWED_FILES))


class _NotCachedError(MissingError):
    """The Hub was not asked, and its cache has no such model."""


@contextmanager
def _hub_errors(model: str, revision: str | None) -> Iterator[None]:
    """Raise what huggingface_hub reports as MissingError, in one line; keep its own talk off the terminal."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()
    ways = _ways_on(model, revision)
    where = model if revision is None else f"{model} at revision {revision}"
    # The base class of the HTTP library that this version of huggingface_hub speaks through (httpx, httpx2).
    http_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.HFValidationError as error:
        message = f"{model} is neither a folder nor the id of a model on the Hub"
        raise MissingError(message, _ways_on(DEFAULT_MODEL, DEFAULT_REVISION)) from error
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
        raise _NotCachedError(f"{where} is not in the cache", ways) from error
    except (http_error, OSError) as error:
        state = "the Hub is switched off (HF_HUB_OFFLINE)" if constants.is_offline_mode() else _line(error)
        raise MissingError(f"{where} is not in the cache and cannot be downloaded: {state}", ways) from error


def _line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:200] or type(error).__name__
