"""The live page that a worker serves: what it is about now, from memory of a fixed size."""
