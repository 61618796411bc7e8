"""Translation of sentences that are made in ``scene``: by Slicer's ``i18n`` in the application, unchanged without it."""

from __future__ import annotations

from collections.abc import Callable


def translator(module_name: str) -> Callable[[str], str]:
    """The function ``_`` of a module: ``_ = translator(__name__)``."""
    context = ".".join(module_name.split(".")[-2:])

    def in_users_language(text: str) -> str:
        try:
            from slicer.i18n import translate

            return translate(context, text) or text
        except (ImportError, AttributeError, TypeError):  # headless, or without an application
            return text

    return in_users_language
