use std::path::Path;

/// The URL of the store, as it was given.
///
/// It may hold a password, so it is handed to the store and to the commands that `steps` runs, and
/// never shown.
#[derive(Clone)]
pub(crate) struct StoreUrl(String);

impl StoreUrl {
    /// The one that was given, otherwise `steps.db` in the current folder.
    pub(crate) fn given_or_default(given: Option<String>) -> Self {
        Self(given.filter(|url| !url.is_empty()).unwrap_or_else(|| "sqlite://steps.db".to_owned()))
    }

    /// The URL.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL under which nothing is made that is not there: a missing file or schema is an error, not an empty
    /// store. A mode that the URL has stays.
    pub(crate) fn without_creating(&self) -> Self {
        self.with_default_mode("rw")
    }

    /// The URL of a store that may be read and nothing else. A mode that the URL has stays.
    pub(crate) fn read_only(&self) -> Self {
        self.with_default_mode("ro")
    }

    /// The same store, seen from any folder: a relative path is one from `folder`.
    ///
    /// In a folder whose name is not UTF-8, which no URL can say, the URL stays as it is.
    pub(crate) fn seen_from_anywhere(&self, folder: &Path) -> Self {
        match (self.sqlite(), folder.to_str()) {
            (Some(file), Some(folder)) if file.is_relative() => {
                // In a path of such a URL, `%` begins a code and `?` the parameters.
                let folder = folder.trim_end_matches('/').replace('%', "%25").replace('?', "%3F");
                let (path, parameters) = (file.path, file.parameters);
                Self(format!("sqlite://{folder}/{path}{parameters}"))
            }
            _ => self.clone(),
        }
    }

    /// What may be shown of it: the path of a file, otherwise the scheme alone.
    pub(crate) fn without_secrets(&self) -> String {
        match (self.sqlite(), self.0.split_once(':')) {
            (Some(file), _) => format!("sqlite:{}", file.path),
            (None, Some((scheme, _))) => format!("{scheme}:…"),
            (None, None) => "a URL without a scheme".to_owned(),
        }
    }

    /// It as an argument of a shell's command that may be shown: of a server, only the place of its URL.
    #[cfg(feature = "conformance")]
    pub(crate) fn for_a_command(&self) -> String {
        match self.sqlite() {
            Some(SqliteUrl { path, parameters }) => {
                format!("'sqlite:{}'", format!("{path}{parameters}").replace('\'', "'\\''"))
            }
            None if self.0 == "memory:" => self.0.clone(),
            None => "URL".to_owned(),
        }
    }

    /// Redis has no modes: a build without steps leaves nothing there.
    fn with_default_mode(&self, mode: &str) -> Self {
        let has_modes = ["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| self.0.starts_with(scheme));
        let parameters = self.0.split_once('?').map(|(_, parameters)| parameters);
        let mut names = parameters.unwrap_or_default().split('&').map(|parameter| parameter.split('=').next());
        if !has_modes || names.any(|name| name == Some("mode")) {
            return self.clone();
        }
        let separator = if parameters.is_some() { '&' } else { '?' };
        Self(format!("{}{separator}mode={mode}", self.0))
    }

    fn sqlite(&self) -> Option<SqliteUrl<'_>> {
        let rest = self.0.strip_prefix("sqlite:")?;
        let (path, parameters) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        Some(SqliteUrl { path: path.strip_prefix("//").unwrap_or(path), parameters })
    }
}

/// The parts of a URL of SQLite: the path, still encoded, and the parameters with their `?`.
struct SqliteUrl<'a> {
    path: &'a str,
    parameters: &'a str,
}

impl SqliteUrl<'_> {
    fn is_relative(&self) -> bool {
        !self.path.is_empty() && !["/", "%2F", "%2f"].iter().any(|root| self.path.starts_with(root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(url: &str) -> StoreUrl {
        StoreUrl(url.to_owned())
    }

    #[test]
    fn nothing_given_is_a_file_here() {
        for nothing in [None, Some(String::new())] {
            assert_eq!(StoreUrl::given_or_default(nothing).as_str(), "sqlite://steps.db");
        }
    }

    #[test]
    fn a_relative_path_becomes_absolute_and_everything_else_stays() {
        for (given, expected) in [
            ("sqlite:steps.db", "sqlite:///a%25b%3F/steps.db"),
            (
                "sqlite://x/steps.db?synchronous=normal&mode=rw",
                "sqlite:///a%25b%3F/x/steps.db?synchronous=normal&mode=rw",
            ),
            ("sqlite:%41 b.db", "sqlite:///a%25b%3F/%41 b.db"),
            ("sqlite:///steps.db?mode=ro", "sqlite:///steps.db?mode=ro"),
            ("sqlite:/steps.db", "sqlite:/steps.db"),
            ("sqlite:%2Fsteps.db", "sqlite:%2Fsteps.db"),
            ("sqlite:", "sqlite:"),
            ("memory:", "memory:"),
            ("postgres://ci:secret@host/steps", "postgres://ci:secret@host/steps"),
            ("steps.db", "steps.db"),
        ] {
            assert_eq!(url(given).seen_from_anywhere(Path::new("/a%b?")).as_str(), expected);
        }
        assert_eq!(url("sqlite:steps.db").seen_from_anywhere(Path::new("/")).as_str(), "sqlite:///steps.db");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_no_url_can_say_changes_nothing() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

        let folder = Path::new(OsStr::from_bytes(b"/\xff"));
        assert_eq!(url("sqlite:steps.db").seen_from_anywhere(folder).as_str(), "sqlite:steps.db");
    }

    #[test]
    fn a_mode_is_added_only_where_there_is_none() {
        for (given, expected) in [
            ("sqlite:steps.db", "sqlite:steps.db?mode=rw"),
            ("sqlite:steps.db?synchronous=full", "sqlite:steps.db?synchronous=full&mode=rw"),
            ("sqlite:steps.db?mode=rwc", "sqlite:steps.db?mode=rwc"),
            ("sqlite:steps.db?synchronous=full&mode=ro", "sqlite:steps.db?synchronous=full&mode=ro"),
            ("postgres://ci@db/ci", "postgres://ci@db/ci?mode=rw"),
            ("postgresql:///ci?host=/run&schema=x", "postgresql:///ci?host=/run&schema=x&mode=rw"),
            ("postgres://ci@db/ci?mode=ro", "postgres://ci@db/ci?mode=ro"),
            ("redis://db?durability=required", "redis://db?durability=required"),
            ("memory:", "memory:"),
        ] {
            assert_eq!(url(given).without_creating().as_str(), expected);
        }
        assert_eq!(url("sqlite:steps.db").read_only().as_str(), "sqlite:steps.db?mode=ro");
    }

    #[cfg(feature = "conformance")]
    #[test]
    fn a_command_names_a_file_and_no_server() {
        for (given, expected) in [
            (
                "sqlite://it's/steps.db?mode=rw&synchronous=normal",
                r"'sqlite:it'\''s/steps.db?mode=rw&synchronous=normal'",
            ),
            ("memory:", "memory:"),
            ("postgres://ci:secret@host/steps", "URL"),
        ] {
            assert_eq!(url(given).for_a_command(), expected);
        }
    }

    #[test]
    fn no_secret_is_shown() {
        for (given, expected) in [
            ("sqlite://a/steps.db?key=secret", "sqlite:a/steps.db"),
            ("postgres://ci:sec@ret?@host/steps?password=secret", "postgres:…"),
            ("secret", "a URL without a scheme"),
        ] {
            assert_eq!(url(given).without_secrets(), expected);
        }
    }
}
