"""The engine: drivers of single environments, the pool of all of them, and the single way in."""
