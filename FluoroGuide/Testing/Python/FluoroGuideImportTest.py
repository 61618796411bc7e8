"""Run by Slicer's ctest: every part of the library that needs no Qt imports in this Python."""

from __future__ import annotations

import importlib
import pkgutil
import unittest


class FluoroGuideImportTest(unittest.TestCase):
    """Is the installed library complete?"""

    def test_every_module_imports(self) -> None:
        import FluoroGuideLib

        # The parts that need packages Slicer does not carry import them inside functions, so none is left out here.
        names = [m.name for m in pkgutil.walk_packages(FluoroGuideLib.__path__, "FluoroGuideLib.") if not m.name.endswith("__main__")]
        self.assertGreater(len(names), 20)
        for name in names:
            if name.startswith(("FluoroGuideLib.ui", "FluoroGuideLib.scene")):
                continue  # imported by the module's own test, which has an application around it
            with self.subTest(name):
                importlib.import_module(name)


if __name__ == "__main__":
    unittest.main()
