"""One file for each library a trainer may be built on: what it does by itself becomes calls of the agent.

Importing one imports its library; importing this imports none.
"""
