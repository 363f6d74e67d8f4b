use std::io;

use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};
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
    super::stream(|stdout| {
        document.serialize(&mut Serializer::with_formatter(&mut *stdout, Escaping))?;
        stdout.write_all(b"\n")
    })
}

/// JSON on one line, with the same characters escaped as in text. serde_json escapes only characters below U+0020.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        writer.write_all(text::shown_json(fragment).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn json_keeps_its_meaning_and_has_no_character_that_text_escapes(given in text::tests::any_text()) {
            let mut json = Vec::new();
            given.serialize(&mut Serializer::with_formatter(&mut json, Escaping)).unwrap();
            let json = String::from_utf8(json).unwrap();
            prop_assert!(text::tests::harmless(&json));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), given);
        }
    }
}
