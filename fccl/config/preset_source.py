"""The source of settings that comes last: a preset's values."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from fccl.presets import BUILTIN_MODEL, PRESETS, usual_preset


def without_line_end(value: Any) -> Any:
    """A value of a file with the line ends of Windows that a shell has read."""
    return value.rstrip("\r\n") if isinstance(value, str) else value


class PresetSource(PydanticBaseSettingsSource):
    """The values of the preset that the sources before this one have named, or of the model's usual preset."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        named = without_line_end(self.current_state.get("preset"))
        if named is not None:
            return dict(PRESETS.get(named, {}))
        usual = usual_preset(without_line_end(self.current_state.get("model_name", BUILTIN_MODEL)))
        return {"preset": usual, **PRESETS[usual]} if PRESETS[usual] else {}
