"""The local API's edge: the Unix socket, the servicer, and the words between messages and rules."""
