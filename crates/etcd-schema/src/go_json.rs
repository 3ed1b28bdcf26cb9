//! JSON as Go's `encoding/json` writes it.
//!
//! etcd keeps JSON in its database and its raft files, and etcdctl prints it. Field order and names are
//! those of the structs that are serialised. What differs from other encoders is in the strings: Go
//! escapes `<`, `>` and `&` (so that the text may stand in HTML), the line separators U+2028 and
//! U+2029, and has no short form for backspace and form feed.

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use std::io::{self, Write};

/// `value` on one line.
///
/// # Panics
/// When `value` has no JSON form, such as a map with keys that are not strings.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    let mut encoded = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut encoded, GoStrings))
        .expect("plain structs of strings and numbers always have a JSON form");
    String::from_utf8(encoded).expect("the encoder writes UTF-8")
}

struct GoStrings;

impl Formatter for GoStrings {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain_from = 0;
        for (at, character) in fragment.char_indices() {
            if matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') {
                writer.write_all(&fragment.as_bytes()[plain_from..at])?;
                write!(writer, "\\u{:04x}", u32::from(character))?;
                plain_from = at + character.len_utf8();
            }
        }
        writer.write_all(&fragment.as_bytes()[plain_from..])
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Quote => writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => writer.write_all(b"\\\\"),
            CharEscape::Solidus => writer.write_all(b"/"),
            CharEscape::LineFeed => writer.write_all(b"\\n"),
            CharEscape::CarriageReturn => writer.write_all(b"\\r"),
            CharEscape::Tab => writer.write_all(b"\\t"),
            CharEscape::Backspace => writer.write_all(b"\\u0008"),
            CharEscape::FormFeed => writer.write_all(b"\\u000c"),
            CharEscape::AsciiControl(byte) => write!(writer, "\\u{byte:04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::to_string;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let text = "a<b>&c \"q\" \\ \n\t\u{8}\u{c}\u{1}\u{7f} é \u{2028}/";
        let expected = concat!(
            r#""a\u003cb\u003e\u0026c \"q\" \\ \n\t\u0008\u000c\u0001"#,
            "\u{7f} é ",
            r#"\u2028/""#,
        );
        assert_eq!(to_string(text), expected);
    }

    #[test]
    fn ids_above_two_to_the_53_keep_every_digit() {
        assert_eq!(to_string(&14_841_639_068_965_178_418_u64), "14841639068965178418");
    }
}
