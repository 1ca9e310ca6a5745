"""What each command means, as pure functions: state and command in, changes and response out."""
