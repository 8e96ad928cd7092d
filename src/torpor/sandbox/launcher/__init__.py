"""The privileged part: builds private roots, namespaces and processes. Standard library only, single-threaded.

Started by the server under another interpreter, so nothing here imports the rest of the project.
"""
