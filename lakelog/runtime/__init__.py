"""How the process behaves: imports, locks, its interpreter."""
