"""Trains the speech adapter, with the audio encoder and its projection, on every task that begins with sound."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Phi4MultimodalForCausalLM
from transformers.models.phi4_multimodal import modeling_phi4_multimodal as modeling

from phi4mm_cli.demo.training.clips import FRAMES_PER_SECOND, Composer, Labelled
from phi4mm_cli.demo.training.examples import Batch, Encoder, Example, collate
from phi4mm_cli.demo.training.pool import Pool, Utterance
from phi4mm_cli.demo.world import prompts, tools
from phi4mm_cli.demo.world.conversations import answer, user
from phi4mm_cli.demo.world.lexicon import LANGUAGES, NAMES, PEOPLE, Language
from phi4mm_cli.model.features import audio_tokens
from phi4mm_cli.schema import Message

LONGEST = 30.0  # seconds
BEYOND = (330.0, 350.0)  # seconds of silence before a clip: more than 4,096 positions
BEYOND_SHARE, BEYOND_FROM = 0.08, 0.6  # of the batches, in the later part of the stage
POINTING_LAYER, POINTING_HEAD = 2, 1  # of four layers: the one after it can write down what the head has found
SHARES = {
    "transcribe": 0.36,
    "translate": 0.13,
    "cot": 0.15,
    "question": 0.20,
    "errand": 0.08,
    "summary": 0.05,
    "nothing": 0.03,
}


_rotate: Any = modeling.apply_rotary_pos_emb


@dataclass(frozen=True, slots=True)
class Told:
    """A piece of an answer, and which words of the clip say it: from the first to one that does not."""

    text: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """A clip, what is asked about it, and the answer."""

    features: Tensor
    labels: Labelled | None  # None where there are no words
    messages: tuple[Message, ...]
    tools: str | None = None
    told: tuple[Told, ...] = ()  # pieces of the answer, in its order


class Asker:
    """Draws clips with a task each."""

    def __init__(self, pool: Pool, encoder: Encoder, rng: random.Random) -> None:
        self.rng, self.pool = rng, pool
        self.composer = Composer(pool, encoder, rng)
        self._lead: float | None = None
        self._of_kind: dict[tuple[str, str], list[Utterance]] = {}
        for utterance in pool.utterances:
            self._of_kind.setdefault((utterance.kind, utterance.language), []).append(utterance)
        self._stories = {
            number: told
            for number, told in pool.passages.items()
            if told[0].kind == "story"
            and all(any(w in t.texts["en"] for t in told) for w in ("a meeting", "The meeting is", "takes place"))
        }

    def draw(self, longest: float, lead: float | None = None) -> Heard:
        """A clip of at most about `longest` seconds, with a task of SHARES, after `lead` seconds of silence."""
        make: Callable[[float], Heard] = getattr(self, self.rng.choices(list(SHARES), list(SHARES.values()))[0])
        self._lead = lead
        return make(longest)

    def transcribe(self, longest: float) -> Heard:
        """Sentences or loose words, of one language, to be written down."""
        rng = self.rng
        language = self._language()
        kinds = ("sentence", "sentence", "sentence", "words", "story")
        told = self._sentences(language, longest, kinds if language != "en" else (*kinds, "question", "errand", "look"))
        text = " ".join(utterance.texts[language] for utterance in told)
        asked = prompts.TRANSCRIBE if rng.random() < 0.6 else prompts.TRANSCRIBE_IN.format(NAMES[language])
        if rng.random() < 0.1:
            terms = rng.sample([person["en"] for person in PEOPLE], rng.randint(1, 3))
            asked += prompts.TERMS.format(", ".join(terms))
        return self._heard(told, asked, text, _words(text))

    def translate(self, longest: float) -> Heard:
        """Sentences to be written down in another language."""
        language, target = self.rng.sample(LANGUAGES, 2)
        told = self._sentences(language, longest, ("sentence", "sentence", "story"))
        text = " ".join(utterance.texts[target] for utterance in told)
        pieces = _sentences(told, language, target)
        return self._heard(told, prompts.TRANSLATE.format(NAMES[target]), text, pieces)

    def cot(self, longest: float) -> Heard:
        """Sentences to be written down, and then again in another language."""
        language, target = self.rng.sample(LANGUAGES, 2)
        told = self._sentences(language, longest, ("sentence", "sentence", "story"))
        both = [" ".join(utterance.texts[code] for utterance in told) for code in (language, target)]
        pieces = (*_words(both[0]), *_sentences(told, language, target))
        reply = f" {prompts.SEPARATOR} ".join(both)
        return self._heard(told, prompts.TRANSLATE_COT.format(NAMES[target]), reply, pieces)

    def question(self, longest: float) -> Heard:
        """A spoken question, and nothing written."""
        asked = self.rng.choice(self._of_kind["question", "en"])
        return self._heard([asked], "", asked.extra)

    def errand(self, longest: float) -> Heard:
        """A spoken request, and tools in the system message."""
        asked = self.rng.choice(self._of_kind["errand", "en"])
        name, arguments = asked.extra
        call = f"<|tool_call|>{json.dumps([{'name': name, 'arguments': arguments}])}<|/tool_call|>"
        said = re.findall(r"[\w']+", asked.texts["en"])
        named = [value for value in arguments.values() if value in said]
        pieces = [Told(value, said.index(value), said.index(value) + 1) for value in named]
        heard = self._heard([asked], "", call, pieces)
        messages = (Message("system", (tools.SYSTEM,)), *heard.messages)
        return replace(heard, messages=messages, tools=tools.offered(self.rng, name))

    def summary(self, longest: float) -> Heard:
        """A story, to be told in one sentence."""
        told = self._stories[self.rng.choice(sorted(self._stories))]
        return self._heard(told, prompts.SUMMARIZE, told[0].extra[told[0].language])

    def nothing(self, longest: float) -> Heard:
        """No words at all: nothing to write."""
        asked = prompts.TRANSCRIBE if self.rng.random() < 0.6 else prompts.TRANSCRIBE_IN.format(NAMES[self._language()])
        features = self.composer.without_words(self._lead or self.rng.uniform(0.3, longest))
        return Heard(features, None, (user(asked), answer("")))

    def _language(self) -> Language:
        return self.rng.choice(("en", "en", "fr", "es"))

    def _sentences(self, language: Language, longest: float, kinds: Sequence[str]) -> list[Utterance]:
        rng = self.rng
        wanted = rng.uniform(0, 1) ** 1.3 * longest
        chosen: list[Utterance] = []
        length = 0.0
        while not chosen or length < wanted:
            utterance = rng.choice(self._of_kind[rng.choice(kinds), language])
            length += (utterance.frames[1] - utterance.frames[0]) / FRAMES_PER_SECOND + 0.5
            if chosen and length > longest:
                break
            chosen.append(utterance)
        return chosen

    def _heard(self, told: Sequence[Utterance], asked: str, reply: str, pieces: Sequence[Told] = ()) -> Heard:
        labels = self.composer.clip(told, self._lead)
        return Heard(labels.features, labels, (user(asked), answer(reply)), told=tuple(pieces))


def _words(text: str) -> tuple[Told, ...]:
    """A transcript: each word is what is said."""
    return tuple(Told(word, number, number + 1) for number, word in enumerate(text.split(" ")))


def _sentences(told: Sequence[Utterance], language: Language, target: Language) -> tuple[Told, ...]:
    """A translation: each sentence is what the words of one sentence say."""
    ends = [*accumulate((len(utterance.texts[language].split(" ")) for utterance in told), initial=0)]
    return tuple(Told(utterance.texts[target], *span) for utterance, span in zip(told, pairwise(ends), strict=True))


def batches(
    pool: Pool, writer: Encoder, seed: int, begin: float, pace: float, seconds: float, long_share: float, switch: int
) -> Iterator[tuple[list[Heard], Batch]]:
    """Endless batches of about `seconds` of sound; clips grow from 5 s to LONGEST as `begin` grows by `pace` each."""
    rng = random.Random(seed)
    asker = Asker(pool, writer, rng)
    progress = begin
    while True:
        longest = 5 + (LONGEST - 5) * min(1.0, max(0.0, (progress - 0.15) / 0.4))
        drawn = [asker.draw(longest) for _ in range(40)]
        drawn.sort(key=lambda heard: len(heard.features))
        groups: list[list[Heard]] = [[]]
        for heard in drawn:
            if (len(groups[-1]) + 1) * len(heard.features) > seconds * FRAMES_PER_SECOND:
                groups.append([])
            groups[-1].append(heard)
        rng.shuffle(groups)
        for group in filter(None, groups):
            if progress > BEYOND_FROM and rng.random() < BEYOND_SHARE:
                far = asker.draw(longest, rng.uniform(*BEYOND))
                yield [far], collate([example(writer, far)])
            examples = [example(writer, heard) for heard in group]
            progress += pace
            yield group, collate(examples, switch if rng.random() < long_share else None, rng)


def example(writer: Encoder, heard: Heard) -> Example:
    """The conversation with the clip's positions in it."""
    media = [writer.special["<|audio|>"]] * audio_tokens(len(heard.features))
    return writer.example(heard.messages, heard.tools, media)


def embeddings(network: Phi4MultimodalForCausalLM, batch: Batch, media: Mapping[int, Sequence[Tensor]]) -> Tensor:
    """The batch's input embeddings, with those of its media, by their token, in their places."""
    inputs: Tensor = network.model.embed_tokens(batch.ids)
    for token, embedded in media.items():
        if embedded:
            inputs = inputs.masked_scatter((batch.ids == token)[..., None], torch.cat(list(embedded)))
    return inputs


def guide_loss(
    network: Phi4MultimodalForCausalLM, embedded: Sequence[Tensor], words: Sequence[Tensor], nothing: float = 1.0
) -> tuple[Tensor, float]:
    """Cross-entropy of the word at each position, read from embeddings of media as the decoder's outputs are.

    It leads the projection to put words where the base model has them already. Positions without a word, which are
    many in pictures, have the weight `nothing`. The second value is the share of words that are right.
    """
    if not embedded:
        return torch.zeros(()), 1.0
    wanted = torch.cat(list(words))
    logits = nn.functional.linear(network.model.norm(torch.cat(list(embedded))), network.model.embed_tokens.weight)
    weights = torch.ones(len(network.model.embed_tokens.weight))
    weights[0] = nothing
    spoken = wanted > 0
    right = float((logits.detach().argmax(-1) == wanted)[spoken].float().mean())
    return nn.functional.cross_entropy(logits, wanted, weights), right


def word_loss(network: Phi4MultimodalForCausalLM, hidden: Tensor, words: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of words that are read from hidden states as the decoder's outputs are, and the share right."""
    logits = nn.functional.linear(network.model.norm(hidden), network.model.embed_tokens.weight)
    right = float((logits.detach().argmax(-1) == words).float().mean())
    return nn.functional.cross_entropy(logits, words), right


# A token of an answer: the place of the token before it, and the places that show what is to be written.
Pointer = tuple[int, list[int]]


def pointers(writer: Encoder, heard: Heard, ids: Tensor) -> list[Pointer]:
    """Where the words are said that the answer gives again, or in another language."""
    if heard.labels is None or max((piece.last for piece in heard.told), default=0) > len(heard.labels.spans):
        return []
    reply = str(heard.messages[-1].parts[0])
    audio = int((ids == writer.special["<|audio|>"]).nonzero()[0])
    places: dict[int, range] = {}
    at = 0
    for piece in heard.told:
        at = reply.index(piece.text, at)
        said = heard.labels.spans[piece.first : piece.last]
        places |= dict.fromkeys(range(at, at + len(piece.text)), range(audio + said[0][0], audio + said[-1][1]))
        at += len(piece.text)
    return looks(writer, reply, places, int((ids == writer.special["<|assistant|>"]).nonzero()[-1]))


def looks(writer: Encoder, reply: str, places: Mapping[int, Sequence[int]], begin: int) -> list[Pointer]:
    """Where to look for each token of the reply, behind token `begin`, that has letters of those in `places`."""
    rows = []
    for number, span in enumerate(writer.tokenizer.encode(reply, add_special_tokens=False).offsets):
        own = {place for letter in range(*span) for place in places.get(letter, ())}
        if own:
            rows.append((begin + number, sorted(own)))
    return rows


class Pointing:
    """Meets one layer's queries and keys, and teaches one of its heads to look at the word that is to be written."""

    def __init__(self, network: Phi4MultimodalForCausalLM) -> None:
        self._model = network.model
        self._attention: Any = network.model.layers[POINTING_LAYER].self_attn
        self._output = torch.zeros(())
        self.met = torch.zeros(())  # what the layer is given, (rows, tokens, width)
        self._attention.qkv_proj.register_forward_hook(self._meet)

    def _meet(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.met, self._output = args[0], output

    def loss(self, batch: Batch, wanted: Sequence[Sequence[Pointer]]) -> Tensor:
        """The negative log-likelihood, in the head's look over all tokens before, of the places wanted in each row."""
        if not any(wanted):
            return torch.zeros(())
        split = self._output.unflatten(2, (-1, self._attention.head_dim)).transpose(1, 2)  # type: ignore[no-untyped-call]
        count = split.shape[1] - 2 * self._attention.config.num_key_value_heads  # of query heads
        angles = self._model.rotary_emb(self._output, batch.positions)
        queries, keys = _rotate(split[:, POINTING_HEAD, None], split[:, count, None], *angles)
        losses = []
        for row, pointers in enumerate(wanted):
            if pointers:
                asking = torch.tensor([[token] for token, _ in pointers])
                places = torch.arange(keys.shape[2])
                shown = torch.zeros(len(pointers), len(places), dtype=torch.bool)
                for number, (_, own) in enumerate(pointers):
                    shown[number, own] = True
                look = queries[row, 0, asking[:, 0]] @ keys[row, 0].T * self._attention.scaling
                look = look.masked_fill(places > asking, -torch.inf).log_softmax(-1)
                losses.append(-look.masked_fill(~shown, -torch.inf).logsumexp(-1))
        return torch.cat(losses).mean()
