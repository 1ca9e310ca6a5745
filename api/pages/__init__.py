"""The pages for people at `/`: server-rendered HTML on the same reads and commands as the API."""
