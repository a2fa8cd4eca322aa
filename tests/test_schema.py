"""Records: hashable, comparable, JSON-safe; keys that name the work and nothing else."""

import dataclasses
import json
from dataclasses import replace

import pytest

from phi4mm_cli import schema
from phi4mm_cli.schema import Clip, Message, Picture, Request, Sampling, Source, canonical_json, to_json

SOURCE = Source("a/talk.wav", 12345, "f00d")


def request(start: float = 0.5, path: str = "a/talk.wav", budget: int = 100) -> Request:
    clip = Clip(dataclasses.replace(SOURCE, path=path), start, 7.25)
    return Request((Message("user", (clip, "Transcribe the audio clip into text.")),), Sampling(budget))


def test_equal_requests_are_one_key() -> None:
    assert request() == request()
    assert len({request(), request()}) == 1
    assert request().key == request().key


@pytest.mark.parametrize("other", [request(start=0.25), request(path="b/talk.wav"), request(budget=101)])
def test_any_difference_changes_the_key(other: Request) -> None:
    assert other != request()
    assert other.key != request().key


def test_key_is_stable_across_versions() -> None:
    # A journal written by one release is read by the next: a change here needs a new journal version.
    assert request().key == "c9c9f07b42727c10fdf4619b5a22d40f258d7c6a13c6c86b0ccd770eab91e9a7"


def test_pictures_and_tools_are_part_of_the_work() -> None:
    def asked(picture: Picture, tools: str | None = None) -> Request:
        return Request((Message("user", (picture, Clip(SOURCE, 0.0, 1.0), "?")),), Sampling(5), tools)

    whole = Picture(SOURCE)
    others = [replace(whole, page=1), replace(whole, time=0.0), replace(whole, most_crops=4)]
    others += [replace(whole, size=(9, 8)), replace(whole, band=(0, 8))]
    requests = [asked(whole), *map(asked, others), asked(whole, "[]"), asked(whole, '[{"name": "f"}]')]
    assert len({request.key for request in requests}) == len(requests)
    assert requests[0].pictures == (whole,)
    assert requests[0].clips == (Clip(SOURCE, 0.0, 1.0),)
    assert requests[0].key == asked(Picture(SOURCE, None, None, None), None).key


def test_sampling_is_part_of_the_work() -> None:
    def asked(**settings: float) -> Request:
        return Request((Message("user", ("a",)),), Sampling(5, **settings))  # type: ignore[arg-type]

    changed = {"temperature": 0.5, "top_p": 0.9, "seed": 1, "repetition_penalty": 1.1, "no_repeat_ngram_size": 3}
    others = [asked(**{name: value}) for name, value in (changed | {"num_beams": 2}).items()]
    assert len({request.key for request in [asked(), *others]}) == 7
    assert asked(temperature=0.0, num_beams=1).key == asked().key
    assert asked(temperature=1).key == asked(temperature=1.0).key  # equal records, equal keys


def test_text_and_media_never_share_a_key() -> None:
    clip = Clip(SOURCE, 0.0, 1.0)
    as_text = Request((Message("user", (canonical_json(clip),)),), Sampling(1))
    as_clip = Request((Message("user", (clip,)),), Sampling(1))
    assert as_text.key != as_clip.key


def test_every_record_is_frozen_and_hashable() -> None:
    records = [record for record in vars(schema).values() if dataclasses.is_dataclass(record)]
    assert len(records) > 10
    for record in records:
        assert record.__dataclass_params__.frozen, record  # type: ignore[attr-defined]
        assert record.__hash__ is not None, record
    assert hash(request()) == hash(request())


def test_json_rounds_times_and_leaves_out_what_is_absent() -> None:
    assert to_json(Clip(SOURCE, 1.23456, 2.0)) == {
        "source": {"path": "a/talk.wav", "size": 12345, "fingerprint": "f00d"},
        "start": 1.235,
        "end": 2.0,
    }
    json.dumps(to_json(request()))
