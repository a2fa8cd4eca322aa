"""A conversation as a record: what happens in it are events, and `after` an event there is another conversation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import assert_never

from phi4mm_cli.schema import Clip, Message

# Our own words for what the model card asks for: it is not meant to sort people by what it hears of them.
PRIVATE = (
    "Do not guess or name anything sensitive about people from their voices: not their gender, age, origin, ethnicity, "
    "health, mood, personality, beliefs or who they are. If you are asked for it, say that you do not do that."
)


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user said, and all that came of it: an answer, before it perhaps calls of tools and their results."""

    said: Message
    replies: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Instructed:
    """The system prompt is another one from now on, or none."""

    system: str | None


@dataclass(frozen=True, slots=True)
class Undone:
    """The last turn is taken back."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The oldest turns are no longer told to the model."""

    turns: int


@dataclass(frozen=True, slots=True)
class Reset:
    """All turns are taken back; the system prompt stays."""


Event = Turn | Instructed | Undone | Dropped | Reset


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the model is told before the next question."""

    system: str | None = None
    turns: tuple[Turn, ...] = ()

    def after(self, event: Event) -> Conversation:
        """The conversation once that has happened."""
        match event:
            case Turn():
                return replace(self, turns=(*self.turns, event))
            case Instructed():
                return replace(self, system=event.system)
            case Undone():
                return replace(self, turns=self.turns[:-1])
            case Dropped():
                return replace(self, turns=self.turns[event.turns :])
            case Reset():
                return replace(self, turns=())
        assert_never(event)

    def asked(self, said: Message, private: bool | None = None) -> tuple[Message, ...]:
        """The messages that ask the model for its answer to `said`.

        `private` puts PRIVATE before the system prompt; None does where there is a voice in the conversation.
        """
        told = [message for turn in self.turns for message in (turn.said, *turn.replies)]
        voices = any(isinstance(part, Clip) for message in (*told, said) for part in message.parts)
        rules = PRIVATE if private or (private is None and voices) else None
        system = "\n\n".join(text for text in (rules, self.system) if text)
        first = (Message("system", (system,)),) if system else ()
        return (*first, *told, said)


def replay(events: list[Event]) -> Conversation:
    """The conversation in which all that has happened."""
    return reduce(Conversation.after, events, Conversation())
