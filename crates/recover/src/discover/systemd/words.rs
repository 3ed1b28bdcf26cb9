//! Words of a setting in a unit file, by systemd's quoting.
//!
//! ```text
//!   /usr/bin/etcd "--name=a b" --data-dir=/var/lib/etcd\x20x 'it is'
//!   └ a word ───┘ └ a word ──┘ └ a word, with a blank ─────┘ └ a word
//! ```
//!
//! Blanks part words; `"…"` and `'…'` keep them together, anywhere in a word; backslash escapes are C's, inside
//! quotes too, and `\s` is a blank. An escape that systemd does not know stays as it is written, as systemd
//! keeps it after its warning. A quote that is never closed ends with the text.

use std::iter::Peekable;
use std::str::Chars;

/// The words of `text`, unquoted.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut rest = text.chars().peekable();
    let mut words = Vec::new();
    loop {
        while rest.next_if(|c| is_blank(*c)).is_some() {}
        if rest.peek().is_none() {
            return words;
        }
        words.push(word(&mut rest));
    }
}

fn word(rest: &mut Peekable<Chars<'_>>) -> String {
    let mut word = String::new();
    let mut quote = None;
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('\\', _) => escape(rest, &mut word),
            ('"' | '\'', None) => quote = Some(c),
            (_, Some(open)) if c == open => quote = None,
            (_, None) if is_blank(c) => break,
            _ => word.push(c),
        }
    }
    word
}

/// What follows a backslash.
fn escape(rest: &mut Peekable<Chars<'_>>, word: &mut String) {
    let Some(c) = rest.next() else {
        return word.push('\\');
    };
    let plain = match c {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        's' => ' ',
        '\\' | '"' | '\'' => c,
        'x' => return coded(c, 2, 16, "", rest, word),
        'u' => return coded(c, 4, 16, "", rest, word),
        'U' => return coded(c, 8, 16, "", rest, word),
        '0'..='7' => return coded(c, 2, 8, c.encode_utf8(&mut [0; 4]), rest, word),
        _ => {
            word.push('\\');
            c
        }
    };
    word.push(plain);
}

/// A character given by its number: `digits` more of them follow `introducer`.
fn coded(
    introducer: char,
    digits: usize,
    radix: u32,
    first: &str,
    rest: &mut Peekable<Chars<'_>>,
    word: &mut String,
) {
    let ahead: String = rest.clone().take(digits).collect();
    let number = format!("{first}{ahead}");
    let whole =
        number.chars().count() == digits + first.len() && number.chars().all(|c| c.is_digit(radix));
    let decoded = u32::from_str_radix(&number, radix).ok().and_then(char::from_u32);
    match decoded.filter(|c| whole && *c != '\0') {
        Some(c) => {
            word.push(c);
            rest.by_ref().take(digits).for_each(drop);
        }
        None => {
            word.push('\\');
            word.push(introducer);
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blanks_part_words_and_quotes_keep_them_together() {
        assert_eq!(words("  a  b\tc "), ["a", "b", "c"]);
        assert_eq!(words(r#""a b" 'c d'"#), ["a b", "c d"]);
        assert_eq!(words(r#"VAR="a b"c"#), ["VAR=a bc"]);
        assert_eq!(words(r#"'say "x"' "it's""#), [r#"say "x""#, "it's"]);
        assert_eq!(words(r#""""#), [""]);
        assert!(words("  ").is_empty());
    }

    #[test]
    fn escapes_are_those_of_c_in_quotes_too() {
        assert_eq!(words(r"a\sb\tc\\d"), ["a b\tc\\d"]);
        assert_eq!(words(r#""\x41\102\u00e9\"""#), ["ABé\""]);
        assert_eq!(words(r"'\x41'"), ["A"]);
    }

    #[test]
    fn an_unknown_escape_stays_as_written() {
        assert_eq!(words(r"\d+ \x4 \;"), [r"\d+", r"\x4", r"\;"]);
        assert_eq!(words("end\\"), ["end\\"]);
    }

    #[test]
    fn a_quote_that_is_never_closed_ends_with_the_text() {
        assert_eq!(words("a 'b c"), ["a", "b c"]);
    }

    /// One word as a careful administrator would write it.
    fn quoted(word: &str, style: u8) -> String {
        let mut out = String::new();
        for c in word.chars() {
            match (c, style) {
                ('\\', _) => out.push_str("\\\\"),
                ('"', 0) | ('\'', 1) => out.extend(['\\', c]),
                ('"' | '\'', 2) => out.extend(['\\', c]),
                (' ', 2) => out.push_str("\\s"),
                ('\n', _) => out.push_str("\\n"),
                ('\t', _) => out.push_str("\\x09"),
                ('\r', _) => out.push_str("\\015"),
                _ => out.push(c),
            }
        }
        match style {
            0 => format!("\"{out}\""),
            1 => format!("'{out}'"),
            _ => out,
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_in_any_style_reads_back_equal(
            given in proptest::collection::vec(("[ -~\t\n\ré☃]{1,12}", 0_u8..3), 0..6)
        ) {
            let text: Vec<_> = given.iter().map(|(word, style)| quoted(word, *style)).collect();
            let expected: Vec<_> = given.into_iter().map(|(word, _)| word).collect();
            prop_assert_eq!(words(&text.join(" ")), expected);
        }

        #[test]
        fn any_text_is_read_without_panic_and_grows_no_longer(text in "\\PC*") {
            let total: usize = words(&text).iter().map(String::len).sum();
            prop_assert!(total <= text.len());
        }
    }
}
