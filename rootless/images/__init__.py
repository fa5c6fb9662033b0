"""Images: their names, the registries they come from, and the store they live in.

Every module may be imported alone; nothing is imported here, because `rl run`
needs only the names and the store.
"""
