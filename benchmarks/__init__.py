"""How fast ecmbatch is beside hand-written pipelines; ``README.md`` says how to run and read it."""
