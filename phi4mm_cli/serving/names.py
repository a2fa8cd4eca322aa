"""What the model is called by its clients."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from phi4mm_cli.schema import Profile, to_json
from phi4mm_cli.serving.refusal import Refusal

BASE = "phi4mm"


@dataclass(frozen=True, slots=True)
class Names:
    """One model under its own name, `phi4mm`, and those of its adapters, as the model card has vLLM call them.

    All of them mean the same: which adapter is at work follows from what a request holds, as the model was trained.
    """

    own: str
    profile: Profile
    began: int = field(default_factory=lambda: int(time.time()))

    def require(self, name: str | None) -> str:
        """The name that the answer gives back. Raises Refusal."""
        known = (BASE, self.own, *self.profile.adapters)
        if name is not None and name not in known:
            message = f"there is no model of that name here; there are {', '.join(dict.fromkeys(known))}"
            raise Refusal(404, message, "model", "model_not_found")
        return name or BASE

    def listed(self) -> list[dict[str, Any]]:
        """What `/v1/models` lists, as vLLM lists a model and its LoRA modules, with what the model says of itself."""
        base = self._entry(BASE, self.own, None) | {
            "max_model_len": self.profile.context,
            "profile": to_json(self.profile),
        }
        return [base, *(self._entry(name, self.own, BASE) | {"max_model_len": None} for name in self.profile.adapters)]

    def _entry(self, name: str, root: str, parent: str | None) -> dict[str, Any]:
        owner = {"object": "model", "created": self.began, "owned_by": "phi4mm"}
        return {"id": name, **owner, "root": root, "parent": parent}
