"""What every part of the settings has in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

__all__ = ["Section", "about_key"]


class Section(BaseModel):
    """A part of the file. Unknown keys are errors; a key without a value is as if left out."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            name: value
            for name, value in data.items()
            if value is not None or name not in cls.model_fields
        }


def about_key(key: str, message: str) -> PydanticCustomError:
    """An error of a section that is about one of its keys."""
    return PydanticCustomError("olla", "{message}", {"message": message, "key": key})
