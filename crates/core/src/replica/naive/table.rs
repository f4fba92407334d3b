//! The table of concurrent pairs of SEMANTICS.md, row by row.
