"""FluoroGuide: plan, register, guide and record fluoroscopy-guided injections.

The package has three rings (see ``Docs/developer_guide.md``): the *core* (arrays, dataclasses and SimpleITK
objects), ``scene`` (MRML) and ``ui`` (Qt).  Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"

RESEARCH_NOTICE = "Research software, not a medical device: it must not be the only basis of a clinical decision."
