"""What senders post, sound or hostile, and what they are answered."""
