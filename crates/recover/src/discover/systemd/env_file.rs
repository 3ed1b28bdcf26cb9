//! Files named by `EnvironmentFile=`, as `/etc/default/etcd` and `/etc/etcd.env`.
//!
//! ```text
//!   # a comment, as is a line that begins with ;
//!   ETCD_NAME=m1
//!   ETCD_DATA_DIR="/var/lib/etcd data"     a blank inside; \" \\ \` \$ are escapes
//!   ETCD_WAL_DIR='/w\al'                   taken literally
//!   DAEMON_ARGS=--snapshot-count 5 \       goes on in the next line
//!     --max-wals=3
//! ```
//!
//! This is systemd's syntax, not a shell's: variables in values are not replaced, `export` is no keyword, and a
//! `#` after a value belongs to it. A name that is given twice counts as given last.

use std::iter::Peekable;
use std::str::Chars;

/// The assignments of a file, in its order. Lines that are none are passed over, as systemd does.
pub(crate) fn assignments(text: &str) -> Vec<(String, String)> {
    let mut rest = text.chars().peekable();
    let mut found = Vec::new();
    while rest.peek().is_some() {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        match rest.peek() {
            None => break,
            Some('#' | ';') => skip_line(&mut rest),
            Some(_) => found.extend(assignment(&mut rest)),
        }
    }
    found
}

/// A comment; a backslash at its end takes the next line along.
fn skip_line(rest: &mut Peekable<Chars<'_>>) {
    while let Some(c) = rest.next() {
        match c {
            '\n' => return,
            '\\' => drop(rest.next()),
            _ => {}
        }
    }
}

fn assignment(rest: &mut Peekable<Chars<'_>>) -> Option<(String, String)> {
    let mut name = String::new();
    loop {
        match rest.next()? {
            '=' => break,
            '\n' => return None,
            c => name.push(c),
        }
    }
    let value = value(rest);
    let name = name.trim_end();
    is_name(name).then(|| (name.to_owned(), value))
}

fn value(rest: &mut Peekable<Chars<'_>>) -> String {
    let mut value = String::new();
    // Blanks at the end of what stands outside quotes are not part of the value.
    let mut kept = 0;
    while rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
    while let Some(c) = rest.next() {
        match c {
            '\n' => break,
            '\'' => single_quoted(rest, &mut value),
            '"' => double_quoted(rest, &mut value),
            '\\' => value.extend(rest.next().filter(|next| *next != '\n')),
            _ => {
                value.push(c);
                if matches!(c, ' ' | '\t' | '\r') {
                    continue;
                }
            }
        }
        kept = value.len();
    }
    value.truncate(kept);
    value
}

fn single_quoted(rest: &mut Peekable<Chars<'_>>, value: &mut String) {
    value.extend(rest.by_ref().take_while(|c| *c != '\''));
}

fn double_quoted(rest: &mut Peekable<Chars<'_>>, value: &mut String) {
    while let Some(c) = rest.next() {
        match c {
            '"' => return,
            '\\' => match rest.next() {
                None | Some('\n') => {}
                Some(next @ ('"' | '\\' | '`' | '$')) => value.push(next),
                Some(next) => value.extend(['\\', next]),
            },
            _ => value.push(c),
        }
    }
}

/// Whether that can be the name of a variable.
pub(in crate::discover) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let found = assignments(text);
        let found: Vec<_> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn comments_and_blank_lines_are_passed_over() {
        check("# a=1\n\n ; b=2\n  c = 3  \n", &[("c", "3")]);
        check("## etcd(1) daemon options\n##\n", &[]);
    }

    #[test]
    fn quotes_are_removed_and_single_ones_take_all_literally() {
        check("a=\"x y\"\nb='x\\y $z'\n", &[("a", "x y"), ("b", "x\\y $z")]);
        check(r#"a="\"\\\$\x""#, &[("a", "\"\\$\\x")]);
        check("a=\"two\nlines\"", &[("a", "two\nlines")]);
        check("a=\" x \" \n", &[("a", " x ")]);
    }

    #[test]
    fn a_backslash_at_the_end_takes_the_next_line_along() {
        check("a=--x 1 \\\n  --y=2\nb=3", &[("a", "--x 1   --y=2"), ("b", "3")]);
    }

    #[test]
    fn a_hash_after_a_value_belongs_to_it() {
        check("a=1 # no comment", &[("a", "1 # no comment")]);
    }

    #[test]
    fn what_is_no_assignment_is_passed_over() {
        check("export a=1\nnothing here\nb=2", &[("b", "2")]);
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back_equal(values in proptest::collection::vec("[ -~\té\n]{0,16}", 0..5)) {
            let mut text = String::new();
            for value in &values {
                let escaped: String = value.chars().flat_map(|c| {
                    let backslash = matches!(c, '"' | '\\' | '`' | '$').then_some('\\');
                    backslash.into_iter().chain([c])
                }).collect();
                text += &format!("ETCD_X=\"{escaped}\"\n");
            }
            let read: Vec<_> = assignments(&text).into_iter().map(|(_, value)| value).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC*") {
            assignments(&text);
        }
    }
}
