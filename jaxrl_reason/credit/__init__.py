"""Which tokens of a completion deserve credit: steps, repairs, audits, gates, grafts.

Host side. Reads: nothing. Writes: nothing.
"""
