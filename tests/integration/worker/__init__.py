"""The drain, the sweeper, and the processes under the supervisor."""
