//! The backends that come with this crate.

use std::sync::Arc;

use crate::Backend;

/// The feature of each backend and its schemes. It also lists backends that were not compiled in, so that an error
/// can name the missing feature.
const FEATURES: [(&str, &[&str]); 4] = [
    ("memory", &["memory"]),
    ("postgres", &["postgres", "postgresql"]),
    ("redis", &["redis", "rediss", "redis-cluster", "rediss-cluster"]),
    ("sqlite", &["sqlite"]),
];

/// The feature of the backend with this scheme.
pub(crate) fn feature(scheme: &str) -> Option<&'static str> {
    FEATURES.iter().find(|(_, schemes)| schemes.contains(&scheme)).map(|(feature, _)| *feature)
}

/// The backends that were compiled in.
pub(crate) fn backends() -> Vec<Arc<dyn Backend>> {
    vec![
        #[cfg(feature = "memory")]
        Arc::new(steps_memory::MemoryBackend),
        #[cfg(feature = "postgres")]
        Arc::new(steps_postgres::PostgresBackend),
        #[cfg(feature = "redis")]
        Arc::new(steps_redis::RedisBackend),
        #[cfg(feature = "sqlite")]
        Arc::new(steps_sqlite::SqliteBackend),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listed_schemes_are_those_of_the_backends() {
        for backend in backends() {
            let listed = FEATURES.iter().any(|(_, schemes)| *schemes == backend.schemes());
            assert!(listed, "{backend:?} has the schemes {:?}", backend.schemes());
        }
    }
}
