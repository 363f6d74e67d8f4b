use crate::BuildId;

/// What a store says about itself, for people: where it is, how it keeps its data, what it promises.
///
/// Each backend has a method `describe` that gives one.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Description {
    /// The name of the backend, such as `sqlite`.
    pub backend: String,
    /// Where the store is, without a password.
    pub location: String,
    /// The version of its schema or storage format, and of the server or library that keeps it.
    pub format: String,
    /// What it promises with these settings, a sentence each.
    pub promises: Vec<String>,
    /// Which of the settings keep it from promising more, a sentence each.
    pub warnings: Vec<String>,
    /// The greatest build that it has steps of, where it declares a limit (I4).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub greatest_build_id: Option<BuildId>,
}

impl Description {
    /// A description without promises, warnings or limits, which are added to their fields.
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
