"""SQL over a snapshot and the live tail; reads only, the store never imports it."""
