use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::{Call, Error, ErrorKind, Operation, Result};

/// The parameters of a store's URL: the `name=value` pairs after the `?`, separated by `&`.
///
/// Names and values are percent-decoded, and `+` is a space. A backend takes each parameter that it supports, and then
/// calls [`finish`](Self::finish), which rejects the remaining ones. No error message contains a value, since it may be
/// a password. If the parameters contain an `@`, no message contains an unknown name either: after a password with an
/// unescaped `?`, the rest of the password looks like parameters.
///
/// ```
/// use steps_core::{OpenMode, UrlParameters};
///
/// let mut parameters = UrlParameters::parse("sqlite", "mode=ro")?;
/// let mode = parameters.take("mode", OpenMode::EXPECTED, |value| value.parse::<OpenMode>().ok())?;
/// assert_eq!(mode, Some(OpenMode::ReadOnly));
/// parameters.finish()?;
/// # Ok::<(), steps_core::Error>(())
/// ```
#[derive(Debug)]
pub struct UrlParameters {
    backend: &'static str,
    /// Names and values; a parameter without `=` has no value.
    remaining: Vec<(String, Option<String>)>,
    known: Vec<&'static str>,
    /// Whether the parameters may be the rest of a password.
    may_be_secret: bool,
}

impl UrlParameters {
    /// Splits and decodes the part of a URL after the `?`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if a decoded name or value is not UTF-8.
    pub fn parse(backend: &'static str, query: &str) -> Result<Self> {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let decoded = percent_decode_str(&text).decode_utf8().map(Cow::into_owned);
            decoded.map_err(|_| config(backend, "invalid parameter in the URL: expected UTF-8"))
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let remaining = pairs.map(|pair| {
            Ok(match pair.split_once('=') {
                Some((name, value)) => (decode(name)?, Some(decode(value)?)),
                None => (decode(pair)?, None),
            })
        });
        Ok(Self {
            backend,
            remaining: remaining.collect::<Result<_>>()?,
            known: Vec::new(),
            may_be_secret: query.contains('@'),
        })
    }

    /// Takes the parameter `name`, if the URL has it. The last of several parameters with this name counts.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if `parse` returns `None` for any of them. The message contains `expected`, a
    /// description of the valid values.
    pub fn take<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        self.known.push(name);
        let mut last = None;
        for (_, value) in self.remaining.extract_if(.., |(given, _)| given == name) {
            let parsed = parse(value.as_deref().unwrap_or_default())
                .ok_or_else(|| config(self.backend, format!("invalid `{name}` in the URL: expected {expected}")));
            last = Some(parsed?);
        }
        Ok(last)
    }

    /// Rejects parameters that were not taken.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if a parameter remains. The message lists the supported parameters, and names the
    /// unknown one unless it may be a part of a password.
    pub fn finish(self) -> Result<()> {
        let Some((name, value)) = self.remaining.first() else { return Ok(()) };
        let expected = match self.known.split_last() {
            Some((last, [])) => format!("expected {last}"),
            Some((last, rest)) => format!("expected {} or {last}", rest.join(", ")),
            None => "expected none".to_owned(),
        };
        // Text without `=` may be the rest of a password with a `?`, so it is not shown.
        let parameter = match value {
            Some(_) if self.may_be_secret => "parameter".to_owned(),
            Some(_) => format!("parameter {name:?}"),
            None => "parameter without a value".to_owned(),
        };
        let advice = if self.may_be_secret { "; write %3F and %40 for \"?\" and \"@\" in a password" } else { "" };
        Err(config(self.backend, format!("unknown {parameter} in the URL: {expected}{advice}")))
    }
}

fn config(backend: &'static str, message: impl Into<Cow<'static, str>>) -> Error {
    let call = Call::on_store(Operation::Connect);
    Error::new(ErrorKind::Config, message).with_call(call).with_backend(backend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpenMode;

    fn mode(query: &str) -> Result<Option<OpenMode>> {
        let mut parameters = UrlParameters::parse("test", query)?;
        let mode = parameters.take("mode", OpenMode::EXPECTED, |value| value.parse().ok())?;
        parameters.take("schema", "a name", |value| Some(value.to_owned()))?;
        parameters.finish()?;
        Ok(mode)
    }

    #[test]
    fn the_last_of_several_parameters_counts_and_text_is_decoded() {
        assert_eq!(mode("").unwrap(), None);
        assert_eq!(mode("&mode=rw&&schema=a&%6dode=r%6f").unwrap(), Some(OpenMode::ReadOnly));
        let mut parameters = UrlParameters::parse("test", "schema=a+b%2B").unwrap();
        let schema = parameters.take("schema", "a name", |value| Some(value.to_owned())).unwrap();
        assert_eq!(schema.as_deref(), Some("a b+"));
    }

    #[test]
    fn an_invalid_parameter_is_named_without_its_value() {
        for (query, message) in [
            ("mode=secret", "invalid `mode` in the URL: expected rwc, rw or ro"),
            ("mode=secret&mode=rw", "invalid `mode` in the URL: expected rwc, rw or ro"),
            ("mode", "invalid `mode` in the URL: expected rwc, rw or ro"),
            ("pasword=secret", "unknown parameter \"pasword\" in the URL: expected mode or schema"),
            ("secret", "unknown parameter without a value in the URL: expected mode or schema"),
            (
                "secret=x@host/db",
                "unknown parameter in the URL: expected mode or schema; write %3F and %40 for \"?\" and \"@\" in a password",
            ),
            ("schema=%ff", "invalid parameter in the URL: expected UTF-8"),
        ] {
            let error = mode(query).unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::Config, message), "{query}");
            assert_eq!(error.to_string(), format!("test: connect: {message}"));
        }
    }
}
