//! Escapes text from a store: it is untrusted, and must not control the terminal.

use std::{borrow::Cow, fmt::Write};

/// The text with all characters escaped that control a terminal or change the order of the shown text, as in `\n` and
/// `\u{1b}`.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    escape(text, |c, escaped| escaped.extend(c.escape_default()))
}

/// JSON with the same characters as JSON escapes, which do not change its meaning.
///
/// serde_json escapes only characters below U+0020. The others occur only in strings, and all are in the basic
/// plane, so that `\u` and four digits are enough.
pub(crate) fn shown_json(json: &str) -> Cow<'_, str> {
    escape(json, |c, escaped| {
        let _ = write!(escaped, "\\u{:04x}", u32::from(c));
    })
}

/// As [`shown`], cut after `limit` characters.
pub(crate) fn shown_start(text: &str, limit: usize) -> Cow<'_, str> {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", shown(&text[..end])).into(),
        None => shown(text),
    }
}

fn escape(text: &str, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(controls_terminal) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if controls_terminal(c) {
            write(c, &mut escaped);
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

/// Whether a character may control the terminal: control characters (C0, DEL, C1), which begin all escape
/// sequences; marks, embeddings, overrides and isolates of direction; separators of lines and paragraphs;
/// deprecated and interlinear formatting.
fn controls_terminal(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{206f}'
                | '\u{fff9}'..='\u{fffb}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ranges that must never reach a terminal, listed independently of `controls_terminal`.
    const NEVER: [(u32, u32); 7] = [
        (0x00, 0x1f),
        (0x7f, 0x9f),
        (0x61c, 0x61c),
        (0x200e, 0x200f),
        (0x2028, 0x2029),
        (0x202a, 0x202e),
        (0x2066, 0x2069),
    ];

    fn harmless(text: &str) -> bool {
        !text.chars().any(|c| NEVER.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c))))
    }

    /// Text in which the characters of [`NEVER`] are frequent.
    fn any_text() -> impl Strategy<Value = String> {
        let dangerous = (0..NEVER.len(), 0..40_u32).prop_map(|(range, offset)| {
            let (first, last) = NEVER[range];
            char::from_u32((first + offset).min(last)).expect("the ranges contain no surrogate")
        });
        proptest::collection::vec(prop_oneof![dangerous, any::<char>()], 0..40).prop_map(String::from_iter)
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(shown("\u{1b}[31mred\u{7}\n\r\t"), r"\u{1b}[31mred\u{7}\n\r\t");
        assert_eq!(shown("\u{9b}2J\u{7f}"), r"\u{9b}2J\u{7f}");
        assert_eq!(shown("a\u{202e}b\u{2066}c\u{2029}"), r"a\u{202e}b\u{2066}c\u{2029}");
    }

    #[test]
    fn all_other_text_stays() {
        for text in ["", "a b", r"C:\new", "é e\u{301} 漢字 🚀 👩\u{200d}💻 עברית", "\u{a0}"] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn cut_text_ends_with_an_ellipsis() {
        assert_eq!(shown_start("ab\nc", 3), "ab\\n…");
        assert_eq!(shown_start("äbc", 3), "äbc");
    }

    proptest! {
        #[test]
        fn no_control_character_gets_through(text in any_text()) {
            prop_assert!(harmless(&shown(&text)));
            prop_assert!(harmless(&shown_start(&text, 10)));
        }

        #[test]
        fn json_keeps_its_meaning(text in any_text()) {
            let json = serde_json::to_string(&text).unwrap();
            let escaped = shown_json(&json);
            prop_assert!(harmless(&escaped));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }
}
