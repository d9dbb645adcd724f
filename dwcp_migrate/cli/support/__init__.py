"""What all commands share: options and output."""
