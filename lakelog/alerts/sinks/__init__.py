"""Receivers of notifications, each named by one text: `log`, an address, a mail address, a
command."""
