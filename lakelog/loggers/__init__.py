"""What an application imports: handlers for logging libraries, exporters, loggers and spans.

All of them encode an event in the caller's thread and leave it in a queue, which a thread of its
own stores: see `queue` for what may be lost, and `values` for what becomes of values that JSON has
no form for.
"""
