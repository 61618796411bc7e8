"""The core in a child process of Slicer.

* ``client`` - what Slicer and scripts use: :class:`~.client.EngineClient`, polled, no Qt.
* ``worker`` - what runs in the child process; ``tasks`` - what it can do.
* ``messages`` - framing and types of the messages; ``exchange`` - big arrays; ``pipes`` - the pipes of the child.

Importing ``engine.client`` imports numpy and the standard library, nothing heavier.
"""
