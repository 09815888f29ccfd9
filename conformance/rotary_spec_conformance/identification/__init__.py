"""What does an implementation do? From its outputs alone, without a spec."""
