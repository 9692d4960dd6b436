"""What methods, signals and rewards share: fields that check themselves, and names to build by."""
