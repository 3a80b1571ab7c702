//! Module `catalogue`.
