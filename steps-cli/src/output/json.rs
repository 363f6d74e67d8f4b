use serde::Serialize;
use steps::{BuildId, Step};

use super::text;
use crate::command_error::CommandError;

/// A build and its steps, as `--json` prints them.
#[derive(Debug, Serialize)]
pub(crate) struct Build<'a> {
    /// The build.
    pub(crate) buildid: BuildId,
    /// All steps, including hidden ones.
    pub(crate) steps: &'a [Step],
}

/// Writes a document on a line of its own.
pub(crate) fn line(document: &impl Serialize) -> Result<(), CommandError> {
    let json = serde_json::to_string(document).map_err(|error| CommandError::System(error.into()))?;
    super::data(&format!("{}\n", text::shown_json(&json)))
}
