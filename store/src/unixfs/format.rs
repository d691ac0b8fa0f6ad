//! The bytes of UnixFS inside dag-pb: to be written.
