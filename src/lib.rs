//! A store for the steps of a build.
