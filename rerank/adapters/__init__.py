"""The client as other libraries want it, a module each. A module needs its library; nothing else does."""
