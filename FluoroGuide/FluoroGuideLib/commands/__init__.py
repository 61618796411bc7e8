"""The commands of ``fluoroguide``: one module each, with ``configure(parser)`` and ``run(arguments) -> exit code``."""
