//! A `StepsStore` in a SQLite file.
