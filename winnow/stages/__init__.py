"""The stages without Dagster: read from the store, call the methods, write to the store.

The files in ``assets/`` declare what is computed and call these; a notebook can call them as well. No method is
implemented here and no database is opened: methods live in the packages beside this one, connections in
:mod:`winnow.store`.
"""
