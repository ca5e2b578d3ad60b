"""The command line: standard library only, over HTTP. One file a verb; nothing is imported but what the verb needs."""
