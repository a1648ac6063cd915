"""Settings out of systemd's credentials: a file of a setting's name in $CREDENTIALS_DIRECTORY.

The one way in for secrets that should stand neither in a settings file nor in the environment. It
comes after the environment and before the file.
"""

from __future__ import annotations

import os

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource


def credentials(settings: type[BaseSettings]) -> tuple[PydanticBaseSettingsSource, ...]:
    """The source for `settings_customise_sources`; none where systemd gave no credentials."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not os.access(folder, os.R_OK):  # none, or one that systemd could not mount
        return ()
    return (SecretsSettingsSource(settings, folder, env_prefix=""),)
