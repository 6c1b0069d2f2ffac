"""The base of all values, frozen and with JSON both ways, and the version that a file of them says."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Value(BaseModel):
    """A frozen value with JSON both ways (`model_dump_json`, `model_validate_json`); NaN and infinity are never
    valid."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Grown(Value):
    """A value that has got fields since files of it were first written. Those in `LATER` are written only where they
    say something else than their default, so a file that does not use them has the bytes that it always had.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        usual = {name: type(self).model_fields[name].get_default(call_default_factory=True) for name in self.LATER}
        unused = {name for name, value in usual.items() if getattr(self, name) == value}
        return {name: value for name, value in written(self).items() if name not in unused}


def exactly(version: int) -> BeforeValidator:
    """For the version of a file: this very number, which neither true nor 1.0 is, though they equal 1."""

    def check(said: object) -> object:
        if type(said) is not int or said != version:
            raise ValueError(f"this program knows version {version}")
        return said

    return BeforeValidator(check)
