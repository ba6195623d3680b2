"""What the commands of ``headrace`` do; ``stream.cli`` says how they are called."""
