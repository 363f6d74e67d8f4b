use std::fmt;

use sha2::{Digest, Sha256};

use crate::{InputError, limits, text};

/// A url of a step, with its display name.
///
/// Both are any Unicode text without NUL, at most 64 KiB of UTF-8 each ([`limits::URL_BYTES`], T1). The empty text is
/// valid, and the syntax of the url is not checked (U4).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "unchecked::StepUrl"))]
pub struct StepUrl {
    name: String,
    url: String,
}

impl StepUrl {
    /// Creates a url from its display name and its text.
    ///
    /// # Errors
    /// [`InputError::TextTooLong`] or [`InputError::Nul`] (T1).
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Result<Self, InputError> {
        let name = name.into();
        let url = url.into();
        text::check("url name", &name, limits::URL_BYTES)?;
        text::check("url", &url, limits::URL_BYTES)?;
        Ok(Self { name, url })
    }

    /// The display name of the url.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of the url.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The key with which a store finds a duplicate (U2): SHA-256 over the name and the url, each preceded by its
    /// length in bytes as a big-endian `u64`.
    ///
    /// The lengths distinguish ("a", "bc") from ("ab", "c"). Stores persist the digest, so it never changes.
    ///
    /// ```
    /// use steps_core::StepUrl;
    ///
    /// let digest = StepUrl::new("log", "https://example.org/")?.digest();
    /// assert_eq!(digest.to_string(), "419a3348806ec93485df0251373eb200675b442d0dd79f6a6a94df1f02933ddc");
    /// # Ok::<(), steps_core::InputError>(())
    /// ```
    #[must_use]
    pub fn digest(&self) -> UrlDigest {
        let mut hasher = Sha256::new();
        for text in [&self.name, &self.url] {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        UrlDigest(hasher.finalize().into())
    }
}

/// The digest of a [`StepUrl`]. It is displayed as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UrlDigest([u8; 32]);

impl UrlDigest {
    /// The digest as bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for UrlDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(feature = "serde")]
mod unchecked {
    /// A deserialized url before its check.
    #[derive(serde::Deserialize)]
    pub(super) struct StepUrl {
        name: String,
        url: String,
    }

    impl TryFrom<StepUrl> for super::StepUrl {
        type Error = crate::InputError;

        fn try_from(read: StepUrl) -> Result<Self, crate::InputError> {
            Self::new(read.name, read.url)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn any_text_without_nul_up_to_its_limit() {
        let longest = "x".repeat(limits::URL_BYTES);
        for (name, url) in [("", ""), (" ", "rel/path"), (&longest, &longest)] {
            let step_url = StepUrl::new(name, url).unwrap();
            assert_eq!((step_url.name(), step_url.url()), (name, url));
        }
        let too_long = format!("{longest}x");
        assert!(matches!(StepUrl::new(&too_long, ""), Err(InputError::TextTooLong { what: "url name", .. })));
        assert!(matches!(StepUrl::new("", &too_long), Err(InputError::TextTooLong { what: "url", .. })));
        assert_eq!(StepUrl::new("a\0", ""), Err(InputError::Nul { what: "url name", position: 1 }));
        assert_eq!(StepUrl::new("", "\0"), Err(InputError::Nul { what: "url", position: 0 }));
    }

    #[test]
    fn the_digest_distinguishes_name_and_url() {
        let digest = |name, url| StepUrl::new(name, url).unwrap().digest();
        assert_ne!(digest("a", "bc"), digest("ab", "c"));
        assert_ne!(digest("", "a"), digest("a", ""));
    }

    /// Stores persist digests, so they never change.
    #[test]
    fn the_digest_never_changes() {
        let digest = StepUrl::new("log", "a").unwrap().digest();
        assert_eq!(digest.to_string(), "24081bc40067f0cbd03287aea32ec0c35f398dacab44726a8f0bf2baee7ab58d");
    }

    proptest! {
        #[test]
        fn equal_digests_mean_equal_pairs(a in "[ab]{0,3}", b in "[ab]{0,3}", c in "[ab]{0,3}", d in "[ab]{0,3}") {
            let one = StepUrl::new(a, b).unwrap();
            let other = StepUrl::new(c, d).unwrap();
            prop_assert_eq!(one == other, one.digest() == other.digest());
        }
    }
}
