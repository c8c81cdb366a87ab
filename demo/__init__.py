"""The demonstration that `script/demo` runs."""
