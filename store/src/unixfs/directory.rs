//! Folders, plain and HAMT: writing and reading. To be written.
