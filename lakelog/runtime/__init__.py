"""How the process behaves: imports, signals, its interpreter."""
