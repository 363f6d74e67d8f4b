use crate::BuildId;

/// A description of a store for its operator: location, storage format and guarantees.
///
/// The store of each backend has a method `describe` that returns one.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Description {
    /// The name of the backend, such as `sqlite`.
    pub backend: String,
    /// The location of the store, without a password.
    pub location: String,
    /// The version of the schema or storage format, and of the server or library behind it.
    pub format: String,
    /// The guarantees of the store with its current settings, a sentence each.
    pub promises: Vec<String>,
    /// The settings that weaken the guarantees, a sentence each.
    pub warnings: Vec<String>,
    /// The largest build id that the store accepts, if it declares a limit (I4).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub greatest_build_id: Option<BuildId>,
}

impl Description {
    /// Creates a description without promises, warnings and limit.
    #[must_use]
    pub fn new(backend: impl Into<String>, location: impl Into<String>, format: impl Into<String>) -> Self {
        Self {
            backend: backend.into(),
            location: location.into(),
            format: format.into(),
            promises: Vec::new(),
            warnings: Vec::new(),
            greatest_build_id: None,
        }
    }
}
