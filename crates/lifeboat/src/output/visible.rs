//! What a terminal shows and does not obey: names and notes come from stores and clusters, and may be anyone's.

use std::{borrow::Cow, fmt::Write as _};

/// The text with control characters as `\u001b`, but for the ends of lines and tabs. JSON stays JSON.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |character| matches!(character, '\n' | '\t'))
}

/// The same on one line.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_obeyed = |character: char| character.is_control() && !stays(character);
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\n' if is_obeyed('\n') => shown.push_str("\\n"),
            obeyed if is_obeyed(obeyed) => {
                let code = u32::from(obeyed);
                write!(shown, "\\u{code:04x}").expect("writing to a String cannot fail");
            }
            plain => shown.push(plain),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        for (text, shown) in [
            ("plain é 界\n\tend", "plain é 界\n\tend"),
            ("\u{1b}]0;title\u{7}", "\\u001b]0;title\\u0007"),
            ("over\rwritten", "over\\u000dwritten"),
            ("\u{9b}31m\u{7f}", "\\u009b31m\\u007f"),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert_eq!(one_line("two\nlines"), "two\\nlines");
    }
}
