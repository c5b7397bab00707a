use std::borrow::Cow;
use std::fmt::Write;

use crate::limits::{MAX_PROSE_CHARS, MAX_TEXT_CHARS};

/// Whether `c` can be printed as it is: it has a width and a shape of its own
/// and steers nothing. Not plain are controls (C0, C1, DEL), line and
/// paragraph separators, bidirectional and other format characters, combining
/// marks and variation selectors, fillers, unassigned and private characters.
pub fn is_plain(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // Letters by category, invisible by design.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' => false,
        // The standard library knows what is printable.
        c => c.escape_debug().len() == 1,
    }
}

/// `text` with every character that is not plain, and the backslash, written
/// as an escape (`\n`, `\u{1b}`): one line, nothing hidden, nothing that
/// steers a terminal. Borrowed when there is nothing to escape.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| is_plain(c) && c != '\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push(&mut out, c);
    }
    Cow::Owned(out)
}

/// A sentence whose parts from outside were escaped when it was made: what is
/// not plain is written as an escape, a backslash stays as it is, and after
/// `MAX_PROSE_CHARS` characters an ellipsis says that there was more.
pub fn prose(text: &str) -> Cow<'_, str> {
    let end = text.char_indices().nth(MAX_PROSE_CHARS);
    let kept = end.map_or(text, |(end, _)| &text[..end]);
    if end.is_none() && kept.chars().all(is_plain) {
        return Cow::Borrowed(kept);
    }
    let mut out = String::with_capacity(kept.len() + 16);
    for c in kept.chars() {
        match c {
            '\\' => out.push(c),
            c => push(&mut out, c),
        }
    }
    if end.is_some() {
        out.push('…');
    }
    Cow::Owned(out)
}

/// `escape`, and at most `MAX_TEXT_CHARS` characters of the input; an ellipsis
/// says that there was more.
pub fn clip(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        None => escape(text),
        Some((end, _)) => Cow::Owned(format!("{}…", escape(&text[..end]))),
    }
}

fn push(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        c if is_plain(c) => out.push(c),
        '\n' | '\r' | '\t' => out.extend(c.escape_default()),
        c => out.extend(c.escape_unicode()),
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_strings_become_visible() {
        for (hostile, shown) in [
            ("curl", "curl"),
            ("naïve 日本 ✓", "naïve 日本 ✓"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\u{0}"),
            (
                "\u{202e}txt\u{2066}\u{200b}\u{feff}",
                "\\u{202e}txt\\u{2066}\\u{200b}\\u{feff}",
            ),
            (
                "\u{2028}\u{ad}\u{e0041}\u{fe0f}\u{301}",
                "\\u{2028}\\u{ad}\\u{e0041}\\u{fe0f}\\u{301}",
            ),
            ("\u{3164}\u{e000}", "\\u{3164}\\u{e000}"),
            ("C:\\x", "C:\\\\x"),
            ("\u{fffd}", "\u{fffd}"),
        ] {
            assert_eq!(escape(hostile), shown);
        }
        assert!(matches!(escape("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_was_escaped_is_not_escaped_again() {
        let told = format!("killed {}", clip("a\u{1b}[2J"));
        assert_eq!(prose(&told), "killed a\\u{1b}[2J");
        assert_eq!(prose("raw\u{1b}[2J\n"), "raw\\u{1b}[2J\\n");
        assert!(matches!(prose("plain \\"), Cow::Borrowed(_)));
    }

    #[test]
    fn long_strings_say_that_they_go_on() {
        assert!(prose(&"x".repeat(2049)).ends_with("x…"));
        assert_eq!(prose(&"x".repeat(2048)).chars().count(), 2048);
        assert_eq!(clip(&"x".repeat(256)).chars().count(), 256);
        assert!(clip(&"x".repeat(257)).ends_with("x…"));
    }
}
