"""What is killed, damaged or away, and how it heals."""
