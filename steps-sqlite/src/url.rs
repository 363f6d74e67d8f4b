use std::path::Path;

use crate::BACKEND;

/// The parts of a URL `sqlite:PATH?PARAMETERS`, still percent-encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SqliteUrl<'a> {
    pub(crate) path: &'a str,
    pub(crate) parameters: Option<&'a str>,
}

impl<'a> SqliteUrl<'a> {
    /// The parts of a URL, or `None` if its scheme is another one.
    pub(crate) fn split(url: &'a str) -> Option<Self> {
        let rest = url.strip_prefix(BACKEND)?.strip_prefix(':')?;
        let (path, parameters) = match rest.split_once('?') {
            Some((path, parameters)) => (path, Some(parameters)),
            None => (rest, None),
        };
        Some(Self { path: path.strip_prefix("//").unwrap_or(path), parameters })
    }

    /// The URL with its path made absolute, or `None` if the path is absolute already.
    pub(crate) fn absolute(self, folder: &Path) -> Option<String> {
        if !self.is_relative() {
            return None;
        }
        let folder = encoded(folder.as_os_str().as_encoded_bytes());
        let folder = folder.trim_end_matches('/');
        let parameters = self.parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
        Some(format!("{BACKEND}://{folder}/{}{parameters}", self.path))
    }

    fn is_relative(self) -> bool {
        !self.path.is_empty() && !["/", "%2F", "%2f"].iter().any(|root| self.path.starts_with(root))
    }
}

/// The folder as a part of a URL. `%` begins a code and `?` the parameters there, and a URL is UTF-8.
fn encoded(folder: &[u8]) -> String {
    let mut encoded = String::new();
    for chunk in folder.utf8_chunks() {
        encoded += &chunk.valid().replace('%', "%25").replace('?', "%3F");
        encoded.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    encoded
}
