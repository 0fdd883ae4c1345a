"""How the worker's parts are put together and brought to the present."""
