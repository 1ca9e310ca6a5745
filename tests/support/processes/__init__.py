"""The programs of the project and their servers, as tests start, kill and stop them."""
