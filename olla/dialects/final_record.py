"""The last record of an Ollama response in its usual form, with the required types.

Other forms are read leniently elsewhere. Not compiled, because msgspec must see the types.
"""

from typing import Annotated

import msgspec

from olla.dialects.records import COUNT_MAX

__all__ = ["FINAL", "Final"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]


class Final(msgspec.Struct):
    """Durations are nanoseconds."""

    done: bool | None = None
    prompt_eval_count: _Count | None = None
    eval_count: _Count | None = None
    load_duration: _Count | None = None
    prompt_eval_duration: _Count | None = None
    eval_duration: _Count | None = None
    total_duration: _Count | None = None


FINAL = msgspec.json.Decoder(Final)
