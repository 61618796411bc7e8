"""Translation of what the panels say."""

from __future__ import annotations

from collections.abc import Callable

import qt


def translator(module_name: str) -> Callable[[str], str]:
    """The function ``_`` of a module: ``_ = translator(__name__)``; texts without a translation come back unchanged.

    The context is built as Slicer's own tools build it: package and file, joined by a dot.
    """
    context = ".".join(module_name.split(".")[-2:])

    def translate(text: str) -> str:
        try:
            return qt.QCoreApplication.translate(context, text) or text
        except (AttributeError, TypeError, ValueError):  # no application, or a Qt without the function
            return text

    return translate
