"""Outcome checks: text of a completion to a Verdict, without ever executing it.

Host side. Reads: nothing. Writes: nothing.
"""
