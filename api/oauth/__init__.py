"""OAuth for apps that cannot send a key: the user signs in with a key, and the app gets a token derived from it."""
