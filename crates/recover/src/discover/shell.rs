//! The words of a shell's command, as far as it is needed to find etcd in it.
//!
//! ```text
//!   sh -c 'GOMAXPROCS=$(nproc) exec /usr/bin/etcd --name="${ETCD_NAME}" 2>&1'
//!                                   └ found ────┘ └ its argument ─────┘
//! ```
//!
//! Quotes, backslashes and plain variables are what such lines are made of. What a command substitution would
//! give is not known: it is kept as written.

use super::setting::Variable;

/// The arguments with which etcd runs in the end, its own path first, if the command runs it at all.
pub(crate) fn etcd_of(command: &[String], variables: &[Variable]) -> Option<Vec<String>> {
    if let Some(script) = script_of(command) {
        let words = words(script, variables);
        let at = words.iter().position(|word| is_etcd(word))?;
        let ends = |word: &String| matches!(word.as_str(), ";" | "&" | "|" | "&&" | "||");
        return Some(words[at..].iter().take_while(|word| !ends(word)).cloned().collect());
    }
    let at = command.iter().position(|word| is_etcd(word))?;
    Some(command[at..].to_vec())
}

fn is_etcd(word: &str) -> bool {
    word.rsplit('/').next() == Some("etcd")
}

/// What stands after `sh -c`.
fn script_of(command: &[String]) -> Option<&str> {
    let shell = command.first()?.rsplit('/').next()?;
    if !matches!(shell, "sh" | "bash" | "dash" | "ash") {
        return None;
    }
    let at = command.iter().position(|word| word.starts_with('-') && word.ends_with('c'))?;
    command.get(at + 1).map(String::as_str)
}

fn words(script: &str, variables: &[Variable]) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = script.chars();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => match rest.next() {
                Some('\n') | None => {}
                Some(next) => {
                    let kept = quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`');
                    word.get_or_insert_default()
                        .extend(kept.then_some('\\').into_iter().chain([next]));
                }
            },
            ('$', None | Some('"')) => {
                let (value, behind) = dollar(rest.as_str(), variables);
                rest = behind.chars();
                match quote {
                    // Outside quotes a value is parted at its blanks.
                    None => {
                        let mut parts = value.split_whitespace().peekable();
                        while let Some(part) = parts.next() {
                            word.get_or_insert_default().push_str(part);
                            if parts.peek().is_some() {
                                words.extend(word.take());
                            }
                        }
                    }
                    Some(_) => word.get_or_insert_default().push_str(&value),
                }
            }
            (' ' | '\t' | '\n', None) => words.extend(word.take()),
            (';' | '&' | '|', None) => {
                words.extend(word.take());
                words.push(c.to_string());
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What stands for a `$` and what follows it, and the text behind that.
fn dollar<'a>(rest: &'a str, variables: &[Variable]) -> (String, &'a str) {
    let value =
        |name: &str| Variable::last(variables, name).map_or("", |v| v.value.as_str()).to_owned();
    if let Some((name, behind)) = rest.strip_prefix('{').and_then(|s| s.split_once('}')) {
        return (value(name), behind);
    }
    if rest.starts_with('(')
        && let Some(end) = rest.find(')')
    {
        // Blanks would part it.
        return (format!("${}", rest[..=end].replace(char::is_whitespace, "_")), &rest[end + 1..]);
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    match end {
        0 => ("$".to_owned(), rest),
        _ => (value(&rest[..end]), &rest[end..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &[&str], expected: Option<&[&str]>) {
        let command: Vec<_> = command.iter().map(|&word| word.to_owned()).collect();
        let variables = [
            Variable::parse("ARGS=--a  --b=1", "x").unwrap(),
            Variable::parse("ETCD_NAME=m 1", "x").unwrap(),
        ];
        let found = etcd_of(&command, &variables);
        let expected = expected.map(|words| words.iter().map(|&w| w.to_owned()).collect());
        assert_eq!(found, expected, "{command:?}");
    }

    #[test]
    fn etcd_is_found_behind_a_shell_and_behind_other_programs() {
        check(&["/usr/bin/etcd", "--name", "a"], Some(&["/usr/bin/etcd", "--name", "a"]));
        check(&["/usr/bin/nice", "-n", "5", "etcd", "--x"], Some(&["etcd", "--x"]));
        check(
            &["/bin/sh", "-c", "GOMAXPROCS=$(nproc) /usr/bin/etcd $ARGS"],
            Some(&["/usr/bin/etcd", "--a", "--b=1"]),
        );
        check(
            &["/bin/bash", "-c", r#"exec etcd --name="${ETCD_NAME}" --x='a b' --y=\ z; echo done"#],
            Some(&["etcd", "--name=m 1", "--x=a b", "--y= z"]),
        );
        check(&["/bin/sh", "-ec", "ulimit -n 9\netcd --a \\\n --b"], Some(&["etcd", "--a", "--b"]));
    }

    #[test]
    fn a_command_that_runs_no_etcd_has_none() {
        check(&["/usr/bin/etcdctl", "snapshot", "save"], None);
        check(&["/bin/sh", "-c", "/usr/bin/etcdctl member list"], None);
        check(&["/bin/sh"], None);
        check(&[], None);
    }
}
