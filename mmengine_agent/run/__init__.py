"""How a run is set up, its flags, its processes and its end."""
