"""Documents, examples and stories, each as a whole."""
