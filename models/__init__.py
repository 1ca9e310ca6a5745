"""What all processes agree on: settings, errors, command messages, tables, the inbox. Imports no other room."""
