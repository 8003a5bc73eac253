"""What type checkers see of lagwise: the modules beside this one are read by mypy and pyright, not run."""
