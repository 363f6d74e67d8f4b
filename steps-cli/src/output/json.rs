use serde::Serialize;
use steps::{BuildId, Step};

use super::text;
use crate::failure::Failure;

/// A build and its steps, as `--json` gives them.
#[derive(Debug, Serialize)]
pub(crate) struct Build<'a> {
    /// The build.
    pub(crate) buildid: BuildId,
    /// All its steps, hidden ones too.
    pub(crate) steps: &'a [Step],
}

/// Writes a document on a line of its own.
pub(crate) fn line(document: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string(document).map_err(|error| Failure::System(error.into()))?;
    super::data(&format!("{}\n", text::shown_json(&json)))
}
