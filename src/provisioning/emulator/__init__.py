"""A local Scalekit for development and tests: what the unmodified SDK and a browser need, as strict as the real one."""
