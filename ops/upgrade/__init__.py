"""`upgrade-db`: PostgreSQL's data moves to the next major version, with a way back.

command.py decides what is to be done, and does it in its order. server.py fills a new server from the old one, and compares the two.
"""
