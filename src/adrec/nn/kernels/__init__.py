"""Fast versions of operations, each beside a plain reference that a test compares it with."""
