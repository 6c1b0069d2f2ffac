"""Settings: every knob, with one spelling. `load_settings` reads those that `Settings` lists."""

from fccl.config.fields import allowed, group_of
from fccl.config.loading import load_settings, set_elsewhere
from fccl.config.machine_settings import AUTO
from fccl.config.privacy_settings import PrivacySettings
from fccl.config.round_settings import RoundSettings
from fccl.config.settings import Settings
from fccl.config.site_settings import SiteSettings
from fccl.presets import GROUPS

__all__ = [
    "AUTO",
    "GROUPS",
    "PrivacySettings",
    "RoundSettings",
    "Settings",
    "SiteSettings",
    "allowed",
    "group_of",
    "load_settings",
    "set_elsewhere",
]
