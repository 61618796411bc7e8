"""Qt: panels of the module, one controller per section, and the session they work on."""
