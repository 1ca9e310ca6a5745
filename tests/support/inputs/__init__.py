"""What is put in: hostile, extreme and made-up values, and the project's own documents."""
