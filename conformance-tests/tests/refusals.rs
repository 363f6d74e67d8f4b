//! Values that the types of `steps-core` reject, so that no store gets them (N1, T1, T2, I1, I3, I5).

use steps_core::{
    BuildId, Error, ErrorKind, IdempotencyKey, InputError, Results, StateString, StepId, StepName, StepNumber, StepUrl,
    Timestamp, limits,
};

/// The value in words, the error, and the expected beginning of its message.
type Refusal = (&'static str, Option<InputError>, &'static str);

fn name(text: impl Into<String>) -> Option<InputError> {
    StepName::new(text).err()
}

fn key(text: impl Into<String>) -> Option<InputError> {
    IdempotencyKey::new(text).err()
}

fn url(name: impl Into<String>, url: impl Into<String>) -> Option<InputError> {
    StepUrl::new(name, url).err()
}

fn time(text: &str) -> Option<InputError> {
    text.parse::<Timestamp>().err()
}

fn refusals() -> Vec<Refusal> {
    vec![
        ("N1: the empty name", name(""), "invalid step name: empty"),
        ("N1: 51 letters", name("x".repeat(51)), "invalid step name: 51 characters"),
        ("N1: 51 characters of four bytes", name("🚀".repeat(51)), "invalid step name: 51 characters"),
        ("N1: a trailing newline", name("compile\n"), "invalid step name: control character '\\n' at position 7"),
        ("N1: a NUL", name("a\0"), "invalid step name: control character '\\0' at position 1"),
        ("N1: a tab", name("\ta"), "invalid step name: control character '\\t' at position 0"),
        (
            "N1: the last of the first control characters",
            name("a\u{1f}"),
            "invalid step name: control character '\\u{1f}' at position 1",
        ),
        (
            "N1: the last ASCII character",
            name("a\u{7f}"),
            "invalid step name: control character '\\u{7f}' at position 1",
        ),
        (
            "N1: the first character after ASCII",
            name("\u{80}"),
            "invalid step name: control character '\\u{80}' at position 0",
        ),
        (
            "N1: the last character before U+00A0",
            name("é\u{9f}"),
            "invalid step name: control character '\\u{9f}' at position 1",
        ),
        (
            "T1: a NUL in a state string",
            StateString::new("a\0b").err(),
            "invalid state string: NUL character at byte 1",
        ),
        (
            "T1: a state string over 1 MiB",
            StateString::new("x".repeat(limits::STATE_STRING_BYTES + 1)).err(),
            "invalid state string: 1048577 bytes of UTF-8",
        ),
        (
            "T1: a state string over 1 MiB by half a character",
            StateString::new("x".repeat(limits::STATE_STRING_BYTES - 1) + "é").err(),
            "invalid state string: 1048577 bytes of UTF-8",
        ),
        ("T1: a NUL in the name of a url", url("\0", ""), "invalid url name: NUL character at byte 0"),
        ("T1: a NUL in a url", url("", "http://\0"), "invalid url: NUL character at byte 7"),
        (
            "T1: a url name over 64 KiB",
            url("x".repeat(limits::URL_BYTES + 1), ""),
            "invalid url name: 65537 bytes of UTF-8",
        ),
        ("T1: a url over 64 KiB", url("", "x".repeat(limits::URL_BYTES + 1)), "invalid url: 65537 bytes of UTF-8"),
        ("T2: before year 1", time("0000-12-31T23:59:59.999999Z"), "invalid time "),
        ("T2: after year 9999, in UTC", time("9999-12-31T23:59:59.999999-00:01"), "invalid time "),
        ("T2: not a time", time("noon"), "invalid time \"noon\""),
        ("T2: a time without a zone", time("2026-01-31T12:00:00"), "invalid time \"2026-01-31T12:00:00\""),
        ("T3: over an i32", "2147483648".parse::<Results>().err(), "invalid results \"2147483648\""),
        ("I1: 0", StepId::new(0).err(), "invalid step id 0"),
        ("I1: over an i64", StepId::try_from(1_u64 << 63).err(), "invalid step id 9223372036854775808"),
        ("I2: -1", StepNumber::try_from(-1_i64).err(), "invalid step number -1"),
        ("I3: 0", BuildId::new(0).err(), "invalid build id 0"),
        ("I3: the least i64", BuildId::new(i64::MIN).err(), "invalid build id -9223372036854775808"),
        ("I5: the empty key", key(""), "invalid idempotency key: 0 characters"),
        ("I5: 65 characters", key("k".repeat(65)), "invalid idempotency key: 65 characters"),
        ("I5: a control character", key("k\u{1f}"), "invalid idempotency key: character '\\u{1f}' at position 1"),
        ("I5: a tab", key("a\tb"), "invalid idempotency key: character '\\t' at position 1"),
        ("I5: outside ASCII", key("é"), "invalid idempotency key: character 'é' at position 0"),
    ]
}

#[test]
fn invalid_values_are_refused_with_the_reason() {
    for (what, refusal, message) in refusals() {
        let refusal = refusal.unwrap_or_else(|| panic!("{what}: accepted"));
        assert!(refusal.to_string().starts_with(message), "{what}: {refusal}");
        let error = Error::from(refusal);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}");
        assert!(!error.is_retryable() && !error.may_have_applied(), "{what}");
    }
}
