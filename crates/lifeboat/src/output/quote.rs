//! Strings in double quotes as Go's `%q` writes them, for `-w fields`.

use std::fmt::Write as _;

/// Quotes `text`; what cannot be printed is escaped.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        push_escaped(&mut quoted, character);
    }
    quoted.push('"');
    quoted
}

fn push_escaped(quoted: &mut String, character: char) {
    match character {
        '"' => quoted.push_str("\\\""),
        '\\' => quoted.push_str("\\\\"),
        '\u{7}' => quoted.push_str("\\a"),
        '\u{8}' => quoted.push_str("\\b"),
        '\u{c}' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\u{b}' => quoted.push_str("\\v"),
        '\'' => quoted.push('\''),
        printable if is_printable(printable) => quoted.push(printable),
        other => push_code_point(quoted, u32::from(other)),
    }
}

/// Unicode's printable characters. The standard library knows them, but tells only by what it
/// escapes; a combining character counts when it does not come first.
fn is_printable(character: char) -> bool {
    let mut after_a_letter = String::from("a");
    after_a_letter.push(character);
    after_a_letter.escape_debug().last() == Some(character)
}

fn push_code_point(quoted: &mut String, code: u32) {
    let written = match code {
        0..=0x7f => write!(quoted, "\\x{code:02x}"),
        0x80..=0xffff => write!(quoted, "\\u{code:04x}"),
        _ => write!(quoted, "\\U{code:08x}"),
    };
    written.expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn text_is_quoted_as_go_quotes_it() {
        for (text, quoted) in [
            ("http://127.0.0.1:2379", r#""http://127.0.0.1:2379""#),
            ("", r#""""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\n\t\r\u{7}\u{8}\u{b}\u{c}", r#""\n\t\r\a\b\v\f""#),
            ("\0\u{1b}\u{7f}", r#""\x00\x1b\x7f""#),
            ("é 界 e\u{301}'", "\"é 界 e\u{301}'\""),
            ("\u{ad}\u{feff}", r#""\u00ad\ufeff""#),
            ("\u{85}\u{a0}\u{2028}", r#""\u0085\u00a0\u2028""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }
}
