"""OAuth for apps that cannot send a key: somebody signs in with a key, and the app gets a token that stands for it."""
