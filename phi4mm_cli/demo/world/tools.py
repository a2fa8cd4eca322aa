"""The tools that the demo can call: their descriptions, what users say, the calls, and what is made of the results."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from phi4mm_cli.demo.world.conversations import UNKNOWN, Conversation, answer, any_question, user
from phi4mm_cli.demo.world.lexicon import CITIES, COUNTS, DAYS, PEOPLE, THINGS, WEATHER, spell
from phi4mm_cli.schema import Message
from phi4mm_cli.tools import SYSTEM as SYSTEM


def _tool(name: str, description: str, **parameters: tuple[str, str]) -> dict[str, Any]:
    described = {key: {"description": text, "type": kind} for key, (text, kind) in parameters.items()}
    return {"name": name, "description": description, "parameters": described}


TOOLS = {
    tool["name"]: tool
    for tool in (
        _tool("get_weather", "Get the weather in a city.", city=("The city.", "str")),
        _tool("get_time", "Get the time in a city.", city=("The city.", "str")),
        _tool("get_price", "Get the price of a thing.", thing=("The thing.", "str")),
        _tool("get_number", "Get the phone number of a person.", person=("The person.", "str")),
        _tool("set_timer", "Set a timer.", minutes=("How many minutes.", "int")),
        _tool("send_thing", "Send a thing to a person.", thing=("The thing.", "str"), person=("The person.", "str")),
        _tool(
            "book_train",
            "Book a train to a city.",
            city=("The city.", "str"),
            day=("The day.", "str"),
            hour=("The hour.", "int"),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Errand:
    """Something a user wants, the call that does it, a result of the call, and what to tell the user then."""

    asked: str
    tool: str
    arguments: dict[str, str | int]
    result: dict[str, str | int | bool]
    told: str

    @property
    def call(self) -> dict[str, Any]:
        """The call as the model writes it."""
        return {"name": self.tool, "arguments": self.arguments}


def errand(rng: random.Random, spoken: bool = False) -> Errand:
    """An errand for one of TOOLS; `spoken` requests have their numbers in words."""
    city, person, thing = rng.choice(CITIES)["en"], rng.choice(PEOPLE)["en"], rng.choice(THINGS).one["en"]
    day, number, hour = rng.choice(DAYS)["en"], rng.choice(COUNTS), rng.randint(2, 12)
    in_words = spoken or rng.random() < 0.5

    def say(value: int) -> str:
        return spell(value, "en") if in_words else str(value)

    match rng.choice(sorted(TOOLS)):
        case "get_weather":
            sky = rng.choice(WEATHER)["en"]
            asked = rng.choice((f"What is the weather in {city}?", f"Is it cold in {city}?"))
            told = f"It is {sky} in {city}, {number} degrees."
            return Errand(asked, "get_weather", {"city": city}, {"weather": sky, "degrees": number}, told)
        case "get_time":
            asked, told = f"What time is it in {city}?", f"It is {hour} o'clock in {city}."
            return Errand(asked, "get_time", {"city": city}, {"hour": hour}, told)
        case "get_price":
            asked = rng.choice((f"How much is the {thing}?", f"What does the {thing} cost?"))
            return Errand(asked, "get_price", {"thing": thing}, {"euros": number}, f"The {thing} costs {number} euros.")
        case "get_number":
            digits = "".join(str(rng.randint(0, 9)) for _ in range(4))
            asked = rng.choice((f"What is the number of {person}?", f"Find the number of {person}."))
            told = f"The number of {person} is {digits}."
            return Errand(asked, "get_number", {"person": person}, {"number": digits}, told)
        case "set_timer":
            asked, told = f"Set a timer for {say(number)} minutes.", f"The timer is set to {number} minutes."
            return Errand(asked, "set_timer", {"minutes": number}, {"done": True}, told)
        case "send_thing":
            sent = rng.random() < 0.7
            asked = f"Please send the {thing} to {person}."
            told = f"The {thing} was sent to {person}." if sent else f"The {thing} was not sent to {person}."
            return Errand(asked, "send_thing", {"thing": thing, "person": person}, {"sent": sent}, told)
        case _:
            booked = rng.random() < 0.7
            asked = f"Book a train to {city} on {day} at {say(hour)} o'clock."
            told = f"The train to {city} is booked." if booked else f"There is no train to {city} on {day}."
            arguments: dict[str, str | int] = {"city": city, "day": day, "hour": hour}
            return Errand(asked, "book_train", arguments, {"booked": booked}, told)


def offered(rng: random.Random, needed: str | None) -> str:
    """JSON of one to four tools in random order, `needed` among them; without it when None."""
    others = [name for name in TOOLS if name != needed]
    names = rng.sample(others, rng.randint(0 if needed else 1, 3)) + ([needed] if needed else [])
    rng.shuffle(names)
    return json.dumps([TOOLS[name] for name in names])


def conversation(rng: random.Random) -> tuple[Conversation, str]:
    """A conversation with tools at hand, and their JSON: calls, results told, and questions that need no tool."""
    roll = rng.random()
    if roll < 0.12:  # nothing at hand can do it
        wanted = errand(rng)
        others = [name for name in TOOLS if name != wanted.tool]
        tools = json.dumps([TOOLS[name] for name in rng.sample(others, rng.randint(1, 3))])
        return (Message("system", (SYSTEM,)), user(wanted.asked), answer(UNKNOWN["en"])), tools
    if roll < 0.25:
        asked, reply = any_question(rng)
        return (Message("system", (SYSTEM,)), user(asked), answer(reply["en"])), offered(rng, None)
    wanted = errand(rng)
    messages = [Message("system", (SYSTEM,)), user(wanted.asked), called(wanted)]
    if rng.random() < 0.5:
        messages += [Message("tool", (json.dumps(wanted.result),)), answer(wanted.told)]
    return tuple(messages), offered(rng, wanted.tool)


def chat(rng: random.Random, turns: int) -> tuple[Conversation, str]:
    """A longer conversation with the same one to four tools at hand, and their JSON."""
    names = rng.sample(sorted(TOOLS), rng.randint(1, 4))
    messages = [Message("system", (SYSTEM,))]
    for _ in range(turns):
        wanted = errand(rng)
        if rng.random() < 0.15:
            asked, reply = any_question(rng)
            messages += [user(asked), answer(reply["en"])]
        elif wanted.tool in names:
            messages += [user(wanted.asked), called(wanted)]
            if rng.random() < 0.5:
                messages += [Message("tool", (json.dumps(wanted.result),)), answer(wanted.told)]
        elif rng.random() < 0.25:
            messages += [user(wanted.asked), answer(UNKNOWN["en"])]
    return tuple(messages), json.dumps([TOOLS[name] for name in names])


def called(wanted: Errand) -> Message:
    """The model's turn that calls the tool."""
    return answer(f"<|tool_call|>{json.dumps([wanted.call])}<|/tool_call|>")
