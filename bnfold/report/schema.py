"""The version of the JSON form. Keys are only ever added within one version."""

__all__ = ["SCHEMA_VERSION"]

SCHEMA_VERSION = 1
