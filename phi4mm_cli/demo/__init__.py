"""The demo checkpoint that ships with the package, and the scripts that make its material."""
