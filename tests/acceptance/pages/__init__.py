"""The pages for people: signing in, what they show and do, in a browser and without one."""
