"""`lictor up`: a mesh of one's own services on this machine, from one file.

FILE.yaml ─▶ file (every mistake at once) ─▶ plan (ports, entries, order: pure) ─▶ run (children, readiness, logs)
"""
