"""The adapters that come with reuselib: one file, one family. They never import each other."""
