"""Mends what breaks a rule in a subtitle file: lines, then times, then neighbours that share what neither has alone.

What breaks no rule stays as it is; words and their order always do. What cannot be mended is left, for `check` to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, repeat

from phi4mm_cli.captions.arrange import Unit, arranged, join, lines, size, units, whole
from phi4mm_cli.captions.check import SPOKEN_BY, of_text, of_time, place
from phi4mm_cli.captions.grammar import Grammar, grammar_of
from phi4mm_cli.captions.pieces import columns
from phi4mm_cli.captions.presets import Preset
from phi4mm_cli.captions.schedule import LAG, needed, scheduled
from phi4mm_cli.subtitles import Cue, Kind, Subtitles, escaped, markup, plain

FLASH = 200  # milliseconds in which nothing can be read
_FOREVER = 10**9
NEAR = 1000  # milliseconds: neighbours that are further apart are not merged
_BOUND = re.compile(r"<\d+:|<ruby\b")  # VTT's times of words, and readings above them: not to be moved
_VOICE = re.compile(r"<v\b")  # VTT's name of who speaks
_TAG_NAME = re.compile(r"</?\s*([A-Za-z]+)")


def fix(found: Subtitles, preset: Preset, language: str | None = None) -> Subtitles:
    """`found` with its rules kept where that is possible."""
    mender = _Mender(found.kind, preset, grammar_of((plain(cue.text, found.kind) for cue in found.cues), language))
    cues, left = mender.in_order(found.cues)
    cues = mender.apart(cues)
    following = [None if after is None else cues[after] for after in _nexts(cues)]
    cues = [part for cue, after in zip(cues, following, strict=True) for part in mender.laid_out(cue, after)]
    cues = mender.timed(cues, LAG)
    cues = mender.timed(mender.merged(cues), 0)
    tail = "\n\n".join(filter(None, [*left, found.tail]))
    return replace(found, cues=tuple(sorted(cues, key=lambda cue: cue.start)), tail=tail, faults=())


def _nexts(cues: Sequence[Cue]) -> list[int | None]:
    """For each cue the number of the next one in its place."""
    following: dict[tuple[str, str], int] = {}
    nexts: list[int | None] = []
    for i in range(len(cues) - 1, -1, -1):
        nexts.append(following.get(place(cues[i])))
        following[place(cues[i])] = i
    return nexts[::-1]


@dataclass(frozen=True, slots=True)
class _Mender:
    kind: Kind
    preset: Preset
    grammar: Grammar

    def in_order(self, cues: Sequence[Cue]) -> tuple[list[Cue], list[str]]:
        """The cues that have a text, in the order of their times, and the NOTEs that stood before none of them.

        Those before cues without a text stand before the next.
        """
        kept: list[Cue] = []
        before: list[str] = []
        for cue in sorted(cues, key=lambda cue: cue.start):
            before += [cue.before] if cue.before else []
            if plain(cue.text, self.kind).strip():
                end = cue.end if cue.end > cue.start else cue.start + needed(self.size(cue), self.preset)
                kept.append(replace(cue, end=end, before="\n\n".join(before)))
                before = []
        return kept, before

    def apart(self, cues: Sequence[Cue]) -> list[Cue]:
        """`cues`, of which those in one place do not overlap; those that begin nearly at once share their time."""
        done = list(cues)
        nexts = _nexts(done)
        for first in range(len(done)):
            crowd = [first]
            while (after := nexts[crowd[-1]]) is not None and done[after].start < done[crowd[-1]].end:
                if done[after].start - done[crowd[-1]].start >= self.preset.shortest:
                    break
                crowd.append(after)
            following = None if after is None else done[after].start - self.preset.gap
            start, end = done[first].start, max(done[i].end for i in crowd)
            end = end if following is None else min(end, max(following, start + len(crowd)))
            shares = list(accumulate((self.size(done[i]) + 1 for i in crowd), initial=0))
            for n, i in enumerate(crowd):
                begins, ends = (start + (end - start) * share // shares[-1] for share in shares[n : n + 2])
                done[i] = replace(done[i], start=begins, end=max(ends, begins + 1))
        return done

    def size(self, cue: Cue) -> int:
        """Columns to be read."""
        return sum(columns(row) for row in plain(cue.text, self.kind).split("\n"))

    def faults(self, cue: Cue) -> list[str]:
        """The rules that a cue breaks by itself."""
        text = plain(cue.text, self.kind)
        found = [*of_text(text, self.preset, self.grammar), *of_time(cue, self.kind, self.preset)]
        return [rule for rule, _ in found]

    # ------------------------------------------------------------------------------------------ lines

    def laid_out(self, cue: Cue, following: Cue | None) -> list[Cue]:
        """`cue` with lines that keep to the rules; two or more where it is too much for one."""
        faults = set(self.faults(cue))
        too_long = "long" in faults and self.size(cue) > self.preset.columns
        if self.rigid(cue) or not (too_long or faults & {"lines", "width", "orphan", "torn"}):
            return [cue]
        return self.rearranged([cue], following, split=too_long)

    def rigid(self, cue: Cue) -> bool:
        """Whether the lines of a cue are to stay as they are: a speaker's each, or bound to their place."""
        rows = plain(cue.text, self.kind).split("\n")
        several = len(rows) > 1 and any(SPOKEN_BY.match(row) for row in rows)
        return several or (self.kind == "vtt" and bool(_BOUND.search(cue.text)))

    def rearranged(self, cues: Sequence[Cue], following: Cue | None, split: bool) -> list[Cue]:
        """The words of `cues` in new ones, with the markup that each word had; as one where it fits, unless `split`."""
        said: list[Unit] = []
        marked: list[str] = []
        for cue in cues:
            text = plain(cue.text, self.kind)
            found = units(text, cue.start, cue.end, self.grammar, self.preset)
            marked += _marked(cue.text, text, found, self.kind)
            join(said, found, self.grammar)
        blocks = arranged(said, self.preset)
        if not split and (one := whole(said, self.preset)):
            blocks = [one]
        until = None if following is None else following.start
        times = scheduled([(said[i].start, said[j - 1].end, size(said[i:j])) for i, _, j in blocks], self.preset, until)
        shown = [replace(unit, text=text) for unit, text in zip(said, marked, strict=True)]
        texts = _closed(["\n".join(lines(shown, block)) for block in blocks], self.kind)
        first, rest = cues[0], replace(cues[0], name="", before="")
        return [
            replace(one, start=start, end=end, text=text)
            for one, text, (start, end) in zip([first, *repeat(rest, len(texts) - 1)], texts, times, strict=True)
        ]

    # ------------------------------------------------------------------------------------------ times

    def timed(self, cues: Sequence[Cue], lag: int) -> list[Cue]:
        """`cues` that do not overlap and are shown for as long as they should be, where there is time.

        To that end they may begin earlier or later by `lag` (milliseconds).
        """
        done = list(cues)
        gap, longest = self.preset.gap, int(min(self.preset.longest, _FOREVER))
        last: dict[tuple[str, str], int] = {}  # the cue before, in each place
        for i, after in enumerate(_nexts(done)):
            cue = done[i]
            where = place(cue)
            wanted = needed(self.size(cue), self.preset)
            free = done[last[where]].end + gap if where in last else 0
            start = max(cue.start, free)
            end = max(min(cue.end, start + longest), start + wanted)
            if after is not None:
                end = min(end, self._latest(start + wanted, done, after, lag))
            start = min(start, max(free, end - wanted, start - lag))  # earlier, if there is time before
            if end - start < FLASH:
                end = start + self.preset.shortest  # the next ones wait for it
            done[i] = replace(cue, start=start, end=end)
            last[where] = i
        return done

    def _latest(self, wanted: int, done: list[Cue], after: int, lag: int) -> int:
        """When a cue must end at the latest; the next begins up to `lag` later where it can, if that helps."""
        following = done[after]
        latest = following.start - self.preset.gap
        spare = following.end - following.start - needed(self.size(following), self.preset)
        push = max(0, min(wanted - latest, spare, lag))
        done[after] = replace(following, start=following.start + push)
        return latest + push

    # ------------------------------------------------------------------------------------------ neighbours

    def merged(self, cues: Sequence[Cue]) -> list[Cue]:
        """`cues`, of which those that are still too short to read share words and time with their neighbours."""
        done: list[Cue] = []
        waiting = list(reversed(cues))
        while waiting:
            cue = waiting.pop()
            if not {"short", "speed"} & set(self.faults(cue)):
                done.append(cue)
                continue
            group = [cue]
            if done and self.joinable(done[-1], cue):
                group.insert(0, done[-1])
            if waiting and self.joinable(cue, waiting[-1]):
                group.append(waiting[-1])
            best = min(self._ways(group, cue, waiting), key=lambda way: way[0])[1]
            if done and group[0] is done[-1]:
                done.pop()
            if group[-1] is not cue:
                waiting.pop()
            done += best
        return done

    def _ways(self, group: Sequence[Cue], cue: Cue, waiting: Sequence[Cue]) -> Iterator[tuple[int, list[Cue]]]:
        """The group as it is and arranged anew, with how many rules each breaks."""
        yield sum(len(self.faults(one)) for one in group), list(group)
        if len(group) > 1:
            beyond = waiting[:-1] if group[-1] is not cue else waiting
            following = next((one for one in reversed(beyond) if place(one) == place(cue)), None)
            made = self.rearranged(group, following, split=True)
            yield sum(len(self.faults(one)) for one in made), made

    def joinable(self, first: Cue, second: Cue) -> bool:
        """Whether two cues may become one."""
        return (
            place(first) == place(second)
            and -NEAR < second.start - first.end < NEAR
            and not (first.name or second.name or second.before)
            and not any(
                self.rigid(cue)
                or _VOICE.search(cue.text)
                or any(SPOKEN_BY.match(row) for row in plain(cue.text, self.kind).split("\n"))
                for cue in (first, second)
            )
        )


# ---------------------------------------------------------------------------------------------- markup


def _marked(raw: str, text: str, found: Sequence[Unit], kind: Kind) -> list[str]:
    """The texts of the units of `text`, escaped, with the tags that `raw` has there; all that it opens, it closes."""
    places: list[tuple[int, str]] = []  # tags, and the character of `text` that they stand before
    at = 0
    read = 0
    for tag in markup(raw, kind):
        at += len(plain(raw[read : tag.start()], kind))
        read = tag.end()
        places.append((at, tag[0]))
    places += [(len(text), closing) for closing in _closings(_open([tag for _, tag in places]))]
    texts = []
    begin = 0
    for n, unit in enumerate(found):
        begin = text.index(unit.text, begin)
        end = begin + len(unit.text)
        here = []
        while places and (
            places[0][0] < end or (places[0][0] == end and places[0][1].startswith("</")) or n == len(found) - 1
        ):
            here.append(places.pop(0))
        marked, done = "", begin
        for at, inserted in here:
            cut = min(max(at, done), end)
            marked += escaped(text[done:cut], kind) + inserted
            done = cut
        texts.append(marked + escaped(text[done:end], kind))
        begin = end
    return texts


def _closed(texts: Sequence[str], kind: Kind) -> list[str]:
    """Texts of one run, each of which closes the tags that are open at its end; the next opens them again."""
    closed: list[str] = []
    open_tags: list[str] = []
    for text in texts:
        carried = "".join(open_tags)
        open_tags = _open(open_tags + [tag[0] for tag in markup(text, kind)])
        closed.append(carried + text + "".join(_closings(open_tags)))
    return closed


def _open(tags: Sequence[str]) -> list[str]:
    """Those of `tags` that are open at the end."""
    open_tags: list[str] = []
    for tag in tags:
        if not tag.startswith("</"):
            open_tags.append(tag)
            continue
        for i in range(len(open_tags) - 1, -1, -1):
            if _name(open_tags[i]) == _name(tag):
                del open_tags[i]
                break
    return open_tags


def _closings(open_tags: Sequence[str]) -> list[str]:
    return [f"</{name}>" for tag in reversed(open_tags) if (name := _name(tag))]


def _name(tag: str) -> str:
    found = _TAG_NAME.match(tag)
    return found[1].lower() if found else ""
