//! The backends that come with this crate.

use std::sync::Arc;

use crate::Backend;

/// The schemes of each backend and the feature that compiles it in. It also knows backends that were left out, to
/// say which feature a URL needs.
const FEATURES: [(&str, &[&str]); 4] = [
    ("memory", &["memory"]),
    ("postgres", &["postgres", "postgresql"]),
    ("redis", &["redis", "rediss", "redis-cluster", "rediss-cluster"]),
    ("sqlite", &["sqlite"]),
];

/// The feature that compiles in the backend of a scheme.
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
    fn each_backend_has_the_schemes_that_are_listed_for_its_feature() {
        for backend in backends() {
            let listed = FEATURES.iter().any(|(_, schemes)| *schemes == backend.schemes());
            assert!(listed, "{backend:?} has the schemes {:?}", backend.schemes());
        }
    }
}
