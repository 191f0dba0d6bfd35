"""Define the base class of all settings sections."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

__all__ = ["Section", "key_error"]


class Section(BaseModel):
    """A section of the file. Unknown keys are errors; keys without a value count as omitted."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            name: value
            for name, value in data.items()
            if value is not None or name not in cls.model_fields
        }


def key_error(key: str, message: str) -> PydanticCustomError:
    """Build a validation error that points at one key of a section."""
    return PydanticCustomError("olla", "{message}", {"message": message, "key": key})
