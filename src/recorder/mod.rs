//! Module `recorder`.
