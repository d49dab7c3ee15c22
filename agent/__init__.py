"""Envio: takes the files other programs leave in a spool folder, sends each by HTTP, and files it by the answer.

Standard library only, CPython 2.6 to 3.13. Read engine.run, then delivery.deliver. setup.py reads the version here.
"""

__version__ = '0.1.0'
