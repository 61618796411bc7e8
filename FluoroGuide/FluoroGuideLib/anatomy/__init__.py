"""From a CT, CBCT or MR volume to what the X-ray sees."""
